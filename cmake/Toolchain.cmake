# Language level, warnings and build configurations.
#
#   -DCMAKE_BUILD_TYPE=Release|Debug      optimised (default) or for a debugger; assertions are on in both
#   -DSHARDKV_SANITIZE=address|thread     address (with undefined behaviour) or thread sanitizer

if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "Release or Debug" FORCE)
endif()
set(SHARDKV_SANITIZE "" CACHE STRING "empty, 'address' (with undefined) or 'thread'")
set_property(CACHE SHARDKV_SANITIZE PROPERTY STRINGS "" address thread)

set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_C_VISIBILITY_PRESET hidden)

# NDEBUG is never defined: our ASSERT stays on, and so does any library's.
set(CMAKE_C_FLAGS_RELEASE "-O2 -g")
set(CMAKE_C_FLAGS_DEBUG "-Og -g3")

add_compile_definitions(_GNU_SOURCE SHARDKV_VERSION="${PROJECT_VERSION}")
add_compile_options(-Wall -Wextra -Wconversion -Wshadow -Wswitch-enum -Wvla -Wstrict-prototypes
                    -Wmissing-prototypes -Wformat=2 -Werror -fno-omit-frame-pointer
                    -fno-strict-aliasing -fstack-protector-strong)

if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
    # Texts for people are cut to fit on purpose, by snprintf, and the warning depends on what the optimiser happens to see.
    add_compile_options(-Wno-format-truncation)
endif()

if(SHARDKV_SANITIZE STREQUAL "address")
    add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all)
    add_link_options(-fsanitize=address,undefined)
elseif(SHARDKV_SANITIZE STREQUAL "thread")
    add_compile_options(-fsanitize=thread)
    add_link_options(-fsanitize=thread)
elseif(NOT SHARDKV_SANITIZE STREQUAL "")
    message(FATAL_ERROR "SHARDKV_SANITIZE=${SHARDKV_SANITIZE} is not known; use 'address' or 'thread'")
endif()
