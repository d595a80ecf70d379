# Third-party libraries, each from a Debian package (deploy/install-packages.sh installs them).
find_package(Threads REQUIRED)
find_package(gRPC CONFIG REQUIRED)      # libgrpc-dev
find_package(RocksDB CONFIG REQUIRED)   # librocksdb-dev
find_package(nanopb CONFIG REQUIRED)    # libnanopb-dev, nanopb
find_package(PkgConfig REQUIRED)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)   # libjansson-dev
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)  # libxxhash-dev
find_program(PROTOC protoc REQUIRED)                          # protobuf-compiler
find_program(PROTOC_GEN_NANOPB protoc-gen-nanopb REQUIRED)
if(BUILD_TESTING)
    pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)  # libcmocka-dev
endif()
