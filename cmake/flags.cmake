# Language, warnings and hardening. Every flag is probed; what a compiler lacks is skipped.
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
# Assertions stay on in every build: for an access gate a wrong state is worse than a restart.
foreach(type RELEASE RELWITHDEBINFO MINSIZEREL)
  string(REPLACE "-DNDEBUG" "" CMAKE_C_FLAGS_${type} "${CMAKE_C_FLAGS_${type}}")
endforeach()
add_compile_definitions(_GNU_SOURCE SALLYPORT_VERSION="${PROJECT_VERSION}")

function(sallyport_flags)
  foreach(flag ${ARGN})
    string(MAKE_C_IDENTIFIER "has${flag}" var)
    check_c_compiler_flag(${flag} ${var})
    if(${var})
      add_compile_options(${flag})
    endif()
  endforeach()
endfunction()

sallyport_flags(-Wall -Wextra -Wpedantic -Wshadow -Wvla -Wundef -Wformat=2 -Wwrite-strings
  -Wpointer-arith -Wcast-qual -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition
  -Wimplicit-fallthrough -Wconversion -Wsign-conversion -Wlogical-op -Wduplicated-cond
  -Wduplicated-branches -Wtrampolines)
if(SALLYPORT_WERROR)
  add_compile_options(-Werror)
endif()
sallyport_flags(-fno-common -fno-strict-aliasing -fstack-protector-strong -fstack-clash-protection
  -fcf-protection=full -ftrivial-auto-var-init=zero -fzero-call-used-regs=used-gpr
  -fstrict-flex-arrays=3)

if(SALLYPORT_SANITIZE OR SALLYPORT_FUZZ)
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
elseif(NOT CMAKE_BUILD_TYPE STREQUAL "Debug")
  add_compile_options(-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
endif()
if(SALLYPORT_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
foreach(flag -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,-z,separate-code -Wl,--as-needed)
  add_link_options(${flag})
endforeach()
set(CMAKE_EXE_LINKER_FLAGS "${CMAKE_EXE_LINKER_FLAGS} -pie")
