"""Builds and runs the planted faults; tests/mutants.sh is the way in and says how to use it.

A catalogue, tests/mutants/<room>.txt, is made of paragraphs:

    mutant  skip_sync                                  named <room>.skip_sync
    breaks  an append is acknowledged that no sync followed
    file    raft/wal/wal_write.c
    -       int error = wal->vfs->sync(wal->vfs->context, active->file);
    +       int error = ERR_OK;
    test    test_wal_log test_sync_*                   a unit test's program; some of its tests, or all
    test    sim.Swarm --seeds 20                       one of ctest's names; what follows is handed to the program
    default                                            optional: also part of ctest's own run, with the first test alone

'as <room>.<name>' takes over what another one breaks and changes, for other tests to catch. The '-' lines have to be in the file exactly once, however it is laid out. Where two lines of defence stand behind one another,
a fault takes away both: 'file', '-' and '+' may come again. The tests are tried from the first on; one of them must fail. The core's own mutants, in tests/raft/mutants.cmake, are run along, each against raft.Swarm.

Nothing in the source tree is touched: the file's mutated copy is compiled as the build compiles the file, and the test's
program is linked as the build links it, with the copy's object ahead of the libraries, or in place of the object it names.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIM_PREFIXES = ("kvraft.", "rsm.", "shardkv.", "sim.")
BASELINE_LIMIT_S = 300
SKIPPED = 77  # a test that says so has shown nothing


class Stop(Exception):
    """The catalogue or the build is not as it must be."""


class Mutant:
    def __init__(self, name, where):
        self.name = name
        self.where = where
        self.breaks = ""
        self.edits = []
        self.like = ""  # another's name
        self.tests = []
        self.default = False

    def files(self):
        return list(dict.fromkeys(edit.file for edit in self.edits))

    def mutated(self, file):
        """The file's text with the fault in it."""
        path = ROOT / file
        if not path.is_file():
            raise Stop(f"{self.where}: {self.name}: there is no file {file}")
        text = path.read_text()
        for edit in self.edits:
            if edit.file != file:
                continue
            words = " ".join(edit.old).split()
            found = list(re.finditer(r"\s+".join(re.escape(word) for word in words), text))
            if len(found) != 1:
                raise Stop(f"{self.where}: {self.name}: its text is {len(found)} times in {file}, not once")
            at = found[0]
            text = text[: at.start()] + "\n".join(edit.new) + text[at.end() :]
        return text


class Edit:
    def __init__(self, file):
        self.file = file
        self.old = []
        self.new = []


def read_catalogue(path):
    mutants = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        where = f"{path.relative_to(ROOT)}:{number}"
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        if line == "" or line.startswith("#"):
            continue
        if word == "mutant":
            mutants.append(Mutant(f"{path.stem}.{rest}", where))
            continue
        if not mutants:
            raise Stop(f"{where}: a paragraph begins with 'mutant'")
        mutant = mutants[-1]
        if word in ("-", "+") and not mutant.edits:
            raise Stop(f"{where}: 'file' comes first")
        if word == "breaks":
            mutant.breaks = rest
        elif word == "file":
            mutant.edits.append(Edit(rest))
        elif word == "-":
            mutant.edits[-1].old.append(rest)
        elif word == "+":
            mutant.edits[-1].new.append(rest)
        elif word == "as":
            mutant.like = rest
        elif word == "test":
            mutant.tests.append(rest)
        elif word == "default":
            mutant.default = True
        else:
            raise Stop(f"{where}: '{word}' is not a word of the catalogue")
    return mutants


def check_complete(mutants):
    for mutant in mutants:
        if mutant.like:
            like = [other for other in mutants if other.name == mutant.like and not other.like]
            if len(like) != 1 or mutant.edits:
                raise Stop(f"{mutant.where}: {mutant.name} is like {mutant.like}, which it cannot be")
            mutant.edits = like[0].edits
            mutant.breaks = mutant.breaks or like[0].breaks
        if not (mutant.breaks and mutant.edits and all(edit.old for edit in mutant.edits) and mutant.tests):
            raise Stop(f"{mutant.where}: {mutant.name} needs 'breaks', 'file', '-' and 'test'")


def read_core():
    """The mutants that ctest has as raft.Mutant.*; the text there is CMake's."""
    path = ROOT / "tests/raft/mutants.cmake"
    string = r'"((?:[^"\\]|\\.)*)"'
    mutants = []
    text = path.read_text()
    for match in re.finditer(r"^raft_mutant\((\w+) (\S+)\s+" + string + r"\s+" + string + r"\)", text, re.M):
        number = text.count("\n", 0, match.start()) + 1
        mutant = Mutant(f"core.{match[1]}", f"{path.relative_to(ROOT)}:{number}")
        mutant.breaks = match[1].replace("_", " ")
        edit = Edit(f"raft/core/{match[2]}")
        unquote = lambda word: word.replace(r"\n", "\n").replace(r"\"", '"')
        edit.old = [unquote(match[3])]
        edit.new = [unquote(match[4])]
        mutant.edits = [edit]
        mutant.tests = ["raft.Swarm"]
        mutants.append(mutant)
    if len(mutants) != len(re.findall(r"^raft_mutant\(", text, re.M)):
        raise Stop(f"{path.relative_to(ROOT)}: a raft_mutant() that could not be read")
    return mutants


def read_all():
    mutants = read_core()
    for path in sorted((ROOT / "tests/mutants").glob("*.txt")):
        mutants += read_catalogue(path)
    names = [mutant.name for mutant in mutants]
    for name in names:
        if names.count(name) > 1:
            raise Stop(f"{name} is there twice")
    check_complete(mutants)
    return mutants


class Test:
    """One line 'test' of the catalogue: a program of the build with arguments and environment."""

    def __init__(self, line):
        name, *rest = line.split()
        self.line = line
        self.environment = {}
        if name.startswith("test_"):
            self.program, self.arguments = name, []
            if rest:
                self.environment["SHARDKV_TESTS"] = " ".join(rest)
        elif name.startswith("golden."):
            script = ROOT / "tests/golden/scripts" / (name.partition(".")[2] + ".txt")
            self.program, self.arguments = "golden", [str(script)] + rest
        elif name == "rpc_torture":
            self.program, self.arguments = name, rest
        elif name.startswith("raft."):
            self.program, self.arguments = "raft_suite", ["--test", name.partition(".")[2]] + rest
        elif name.startswith(SIM_PREFIXES):
            self.program, self.arguments = "sim_suite", ["--test", name] + rest
        else:
            raise Stop(f"no program is known for the test '{line}'")


def run_bounded(program, test, directory, limit_s):
    """(exit code, or None when it did not end; seconds; output)"""
    began = time.monotonic()
    environment = dict(os.environ, **test.environment)
    if not pathlib.Path(program).is_file():
        raise Stop(f"{program} is not built")
    with tempfile.TemporaryFile(dir=directory) as output:
        process = subprocess.Popen([program] + test.arguments, cwd=directory, env=environment, stdin=subprocess.DEVNULL,
                                   stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)  # what it started ends with it
            except ProcessLookupError:
                pass
            process.wait()
        output.seek(0, os.SEEK_END)
        output.seek(max(0, output.tell() - 20000))
        return code, time.monotonic() - began, output.read().decode(errors="replace")


class Build:
    def __init__(self, directory):
        self.directory = directory
        self.objects = {}
        self.links = {}
        self.lock = threading.Lock()

    def make(self, programs):
        run = subprocess.run(["ninja", "--quiet", "-C", str(self.directory)] + [f"tests/{name}" for name in programs])
        if run.returncode != 0:
            raise Stop("the build without any fault failed")

    def read(self):
        database = self.directory / "compile_commands.json"
        if not database.is_file():
            raise Stop(f"{self.directory} is not a build directory")
        for entry in json.loads(database.read_text()):
            self.objects.setdefault(entry["file"], []).append(shlex.split(entry["command"]))

    def link_command(self, program):
        with self.lock:
            if program not in self.links:
                said = subprocess.run(["ninja", "-C", str(self.directory), "-t", "commands", f"tests/{program}"],
                                      check=True, capture_output=True, text=True).stdout
                line = [line for line in said.splitlines() if f" -o tests/{program} " in line]
                if len(line) != 1:
                    raise Stop(f"how tests/{program} is linked could not be read from the build")
                words = shlex.split(line[0].replace(": && ", "").replace(" && :", ""))
                self.links[program] = words
            return list(self.links[program])

    def compile(self, mutant, file, directory):
        """(the object; the names of the ones it stands for) The room's library is the first to compile a file."""
        copy = directory / pathlib.Path(file).name
        copy.write_text(mutant.mutated(file))
        commands = self.objects.get(str(ROOT / file))
        if commands is None:
            raise Stop(f"{mutant.name}: {file} is not compiled by this build")
        command = list(commands[0])
        built = copy.with_suffix(".o")
        command[command.index("-o") + 1] = str(built)
        command[command.index("-c") + 1] = str(copy)
        command += ["-w", "-Wno-error"]
        run = subprocess.run(command, cwd=self.directory, capture_output=True, text=True)
        if run.returncode != 0:
            raise Stop(f"{mutant.name} does not compile:\n{run.stderr[-2000:]}")
        return built, {words[words.index("-o") + 1] for words in commands}

    def link(self, program, objects, directory):
        words = self.link_command(program)
        out = directory / program
        words[words.index("-o") + 1] = str(out)
        for built, stands_for in objects:
            named = [i for i, word in enumerate(words) if word in stands_for]
            if named:
                words[named[0]] = str(built)
            else:
                libraries = [i for i, word in enumerate(words) if word.endswith(".a")]
                words.insert(libraries[0], str(built))
        run = subprocess.run(words, cwd=self.directory, capture_output=True, text=True)
        if run.returncode != 0:
            raise Stop(f"{program} does not link with the fault:\n{run.stderr[-2000:]}")
        return out


class Verdict:
    def __init__(self, mutant, state, text, seconds=0.0):
        self.mutant = mutant
        self.state = state  # caught, SURVIVED, BROKEN
        self.text = text
        self.seconds = seconds


def first_complaint(output):
    """What the test said, for a person: an assertion, a comparison, or where it failed."""
    lines = [" ".join(line.split()) for line in output.splitlines()]
    for pattern in (r"assertion failed|^FAILED|runtime error|AddressSanitizer", r"0x.* != |!= ", r"error: Failure"):
        for line in lines:
            if re.search(pattern, line):
                return line[:160]
    return lines[-1][:160] if lines else ""


def last_line(output):
    lines = output.split("\n")
    return "last said: " + next((line.strip() for line in reversed(lines) if line.strip()), "nothing")[:80]


def try_mutant(mutant, build, baselines, options):
    caught_by, spent = [], 0.0
    with tempfile.TemporaryDirectory(prefix="shardkv-mutant-") as name:
        directory = pathlib.Path(name)
        try:
            objects = [build.compile(mutant, file, directory) for file in mutant.files()]
            programs = {}
            for line in mutant.tests:
                test = Test(line)
                if test.program not in programs:
                    programs[test.program] = build.link(test.program, objects, directory)
                limit_s = max(options.limit, 20 * baselines[line])
                code, seconds, output = run_bounded(programs[test.program], test, directory, limit_s)
                spent += seconds
                if code == 0:
                    if options.every:
                        caught_by.append(f"not by {line}")
                    continue
                how = f"{seconds:.1f} s"
                if code is None:
                    how = f"hang: no end in {limit_s:.0f} s, without the fault {baselines[line]:.1f} s; {last_line(output)}"
                elif code == SKIPPED:
                    raise Stop(f"{mutant.name}: {line} skipped itself")
                caught_by.append(f"{line}  ({how})")
                if options.verbose and code is not None:
                    caught_by.append(first_complaint(output))
                if not options.every:
                    break
        except Stop as stop:
            return Verdict(mutant, "BROKEN", str(stop), spent)
    if any(not text.startswith("not by") for text in caught_by):
        return Verdict(mutant, "caught", "\n".join(caught_by), spent)
    return Verdict(mutant, "SURVIVED", "; ".join(mutant.tests), spent)


def run_baselines(mutants, build, jobs):
    """Every test that will be asked has to pass without a fault. Gives its seconds."""
    lines = sorted({line for mutant in mutants for line in mutant.tests})
    baselines = {}

    def run(line):
        test = Test(line)
        with tempfile.TemporaryDirectory(prefix="shardkv-mutant-") as name:
            return line, run_bounded(build.directory / "tests" / test.program, test, name, BASELINE_LIMIT_S)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for line, (code, seconds, output) in pool.map(run, lines):
            if code != 0:
                raise Stop(f"without any fault, {line} does not pass (exit code {code}):\n{output[-3000:]}")
            baselines[line] = seconds
    return baselines


def show(verdict, width):
    colour = "" if verdict.state == "caught" or not sys.stdout.isatty() else "\033[1;31m"
    end = "\033[0m" if colour else ""
    room, _, name = verdict.mutant.name.partition(".")
    text = verdict.text.splitlines() or [""]
    print(f"{room:<10} {name:<{width}} {colour}{verdict.state:<8}{end} {text[0]}")
    for more in text[1:]:
        print(f"{'':<10} {'':<{width}} {'':<8} {more}")
    if verdict.state != "caught":
        print(f"{'':<10} {'':<{width}} {'':<8} it breaks: {verdict.mutant.breaks} ({verdict.mutant.where})")
    sys.stdout.flush()


def chosen(mutants, options):
    if options.default:  # quick, so the first test has to do
        mutants = [mutant for mutant in mutants if mutant.default]
        for mutant in mutants:
            del mutant.tests[1:]
    if options.patterns:
        mutants = [mutant for mutant in mutants
                   if any(re.search(pattern, mutant.name) for pattern in options.patterns)]
    if not mutants:
        raise Stop("no mutant has such a name; --list gives them")
    return mutants


def run(options):
    mutants = chosen(read_all(), options)
    if options.list:
        for mutant in mutants:
            print(f"{mutant.name:<45} {mutant.breaks}")
        return 0
    stale = 0
    for mutant in mutants:  # before anything is built: a fault that cannot be planted fails the run
        try:
            for file in mutant.files():
                mutant.mutated(file)
            for line in mutant.tests:
                Test(line)
        except Stop as stop:
            print(f"STALE     {stop}", file=sys.stderr)
            stale += 1
    if stale or options.check:
        print(f"{len(mutants) - stale} of {len(mutants)} planted faults have their place in the sources")
        return 1 if stale else 0

    build = Build(pathlib.Path(options.build).resolve())
    if not options.no_build:
        build.make(sorted({Test(line).program for mutant in mutants for line in mutant.tests}))
    build.read()
    began = time.monotonic()
    if options.no_baseline:
        baselines = {line: 0.0 for mutant in mutants for line in mutant.tests}
    else:
        baselines = run_baselines(mutants, build, options.jobs)
        print(f"{len(baselines)} tests pass without a fault ({time.monotonic() - began:.0f} s)", flush=True)
    width = max(len(mutant.name.partition(".")[2]) for mutant in mutants)
    verdicts = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        waiting = [pool.submit(try_mutant, mutant, build, baselines, options) for mutant in mutants]
        for future in waiting:
            verdicts.append(future.result())
            show(verdicts[-1], width)
    count = lambda state: sum(verdict.state == state for verdict in verdicts)
    print(f"{count('caught')} of {len(verdicts)} planted faults caught, {count('SURVIVED')} survived, "
          f"{count('BROKEN')} could not be tried; {time.monotonic() - began:.0f} s")
    return 0 if count("caught") == len(verdicts) else 1


def main():
    parser = argparse.ArgumentParser(prog="tests/mutants.sh")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--default", action="store_true")
    parser.add_argument("--every", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--no-build", action="store_true")
    parser.add_argument("--no-baseline", action="store_true")
    parser.add_argument("--build", required=True)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--limit", type=float, default=30)
    parser.add_argument("patterns", nargs="*", metavar="PATTERN")
    try:
        return run(parser.parse_args())
    except Stop as stop:
        print(f"mutants.sh: {stop}", file=sys.stderr)
        return 1


sys.exit(main())
