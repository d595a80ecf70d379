# Planted faults in all rooms (tests/mutants/mutants.py). All of them are tests/mutants.sh's; here is what keeps the catalogue true
# with every change - each fault still has its place in the sources - and a few of each room, planted into this very build.
add_test(NAME mutants.Catalogue COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/mutants.sh --check)
set_tests_properties(mutants.Catalogue PROPERTIES TIMEOUT 60 LABELS mutant)
if(NOT CMAKE_GENERATOR STREQUAL "Ninja")
    return() # how files are compiled and linked is read from Ninja's files
endif()
add_test(NAME mutants.Default COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/mutants.sh --default --no-build --no-baseline --jobs 1
    --build ${CMAKE_BINARY_DIR})
set_tests_properties(mutants.Default PROPERTIES TIMEOUT 600 LABELS mutant)
