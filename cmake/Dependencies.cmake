# Third-party libraries, each from a Debian package (deploy/install-packages.sh installs them).
find_package(Threads REQUIRED)
find_package(RocksDB CONFIG REQUIRED)   # librocksdb-dev
find_package(nanopb CONFIG REQUIRED)    # libnanopb-dev, nanopb
find_package(PkgConfig REQUIRED)
# libgrpc-dev. Not by its CMake package, which demands the C++ code generator, nor with the .pc file's libraries, which
# name everything a static link would need: the shared C core is these two.
pkg_check_modules(GRPC REQUIRED grpc)
find_library(GRPC_LIBRARY grpc REQUIRED)
find_library(GPR_LIBRARY gpr REQUIRED)
add_library(gRPC::grpc INTERFACE IMPORTED GLOBAL)
target_link_libraries(gRPC::grpc INTERFACE ${GRPC_LIBRARY} ${GPR_LIBRARY})
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)   # libjansson-dev
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)  # libxxhash-dev
find_program(PROTOC protoc REQUIRED)                          # protobuf-compiler
find_program(PROTOC_GEN_NANOPB protoc-gen-nanopb REQUIRED)
if(BUILD_TESTING)
    pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)  # libcmocka-dev
endif()
