# libshardkv as others see it: one shared library and one archive, in which only skv_... is visible, the header, and the
# files by which pkg-config and CMake find them. `cmake --install BUILD --component library` installs just that.
include(CMakePackageConfigHelpers)

set(library_objects $<TARGET_OBJECTS:client> $<TARGET_OBJECTS:rpc> $<TARGET_OBJECTS:proto> $<TARGET_OBJECTS:base>)
set(library_needs nanopb::protobuf-nanopb-static gRPC::grpc
    PkgConfig::XXHASH Threads::Threads)
set(version_script ${CMAKE_CURRENT_SOURCE_DIR}/install/shardkv.map)

# ---- shared
add_library(libshardkv-shared SHARED ${library_objects})
set_target_properties(libshardkv-shared PROPERTIES OUTPUT_NAME shardkv LINKER_LANGUAGE C
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib LINK_DEPENDS ${version_script})
target_link_libraries(libshardkv-shared PRIVATE ${library_needs})
target_link_options(libshardkv-shared PRIVATE -Wl,--version-script=${version_script} -Wl,-z,defs)
if(SHARDKV_SANITIZE)  # the sanitizer's functions come with the program
    target_link_options(libshardkv-shared PRIVATE -Wl,-z,undefs)
endif()
install(TARGETS libshardkv-shared LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT library)

# ---- archive: everything as one object, nanopb's too, whose other symbols are made local, so that none of ours can meet
# one of the program's
set(archive ${CMAKE_BINARY_DIR}/lib/libshardkv.a)
add_custom_command(
    OUTPUT ${archive}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/lib
    COMMAND ${CMAKE_COMMAND} -E rm -f ${archive}
    COMMAND ${CMAKE_LINKER} -r -o ${CMAKE_CURRENT_BINARY_DIR}/shardkv.o ${library_objects}
            $<TARGET_FILE:nanopb::protobuf-nanopb-static>
    COMMAND ${CMAKE_OBJCOPY} --wildcard --keep-global-symbol=skv_* ${CMAKE_CURRENT_BINARY_DIR}/shardkv.o
    COMMAND ${CMAKE_AR} rcs ${archive} ${CMAKE_CURRENT_BINARY_DIR}/shardkv.o
    DEPENDS client rpc proto base ${library_objects}
    COMMENT "Making libshardkv.a"
    COMMAND_EXPAND_LISTS VERBATIM)
add_custom_target(libshardkv-static ALL DEPENDS ${archive})
install(FILES ${archive} DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT library)

# ---- the header, and how to find it all
install(FILES shardkv.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT library)
set(SHARED_FILE libshardkv.so.${PROJECT_VERSION})
set(SHARED_SONAME libshardkv.so.${PROJECT_VERSION_MAJOR})
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/shardkv)
file(RELATIVE_PATH PC_PREFIX /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(install/shardkv.pc.in shardkv.pc @ONLY)
configure_package_config_file(install/shardkvConfig.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/shardkvConfig.cmake
    INSTALL_DESTINATION ${package_dir} PATH_VARS CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/shardkvConfigVersion.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/shardkv.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT library)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/shardkvConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/shardkvConfigVersion.cmake
    DESTINATION ${package_dir} COMPONENT library)
