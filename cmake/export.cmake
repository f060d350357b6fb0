# sallyport-export: recordings of desktops to videos and pictures. The one program that decodes, and
# the only one that maps FreeRDP's and FFmpeg's libraries; everything else works without it.
option(SALLYPORT_EXPORT "Build sallyport-export: needs FreeRDP's client library and FFmpeg's" ON)
pkg_search_module(FREERDP_CLIENT IMPORTED_TARGET freerdp-client3 freerdp-client2)
pkg_search_module(FREERDP IMPORTED_TARGET freerdp3 freerdp2)
pkg_check_modules(AV IMPORTED_TARGET libavcodec libavformat libswscale libavutil)
set(SALLYPORT_HAS_EXPORT OFF)
if(SALLYPORT_EXPORT AND FREERDP_CLIENT_FOUND AND FREERDP_FOUND AND AV_FOUND)
  set(SALLYPORT_HAS_EXPORT ON)
  sallyport_library(sp_export DIRS tracker/export LIBS sp_recording PkgConfig::FREERDP_CLIENT
    PkgConfig::FREERDP PkgConfig::WINPR PkgConfig::AV PkgConfig::ZSTD PkgConfig::SECCOMP
    Threads::Threads)
  # of the relay's folder only the parsers: pure functions
  foreach(name dvc frame gcc info mcs share x224)
    target_sources(sp_export PRIVATE ${CMAKE_SOURCE_DIR}/proxy/rdp/${name}.c)
  endforeach()
  add_executable(sallyport-export tracker/export/main.c)
  target_link_libraries(sallyport-export PRIVATE sp_export)
  install(TARGETS sallyport-export RUNTIME
    DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/sallyport)
elseif(SALLYPORT_EXPORT)
  message(STATUS "sallyport-export is NOT built: the development packages of FreeRDP's client "
    "library or of FFmpeg are missing (scripts/deps.sh build installs them)")
else()
  message(STATUS "sallyport-export is not built: SALLYPORT_EXPORT is off")
endif()
# sallyctl starts it
target_compile_definitions(sp_cli PRIVATE SALLYPORT_LIBEXECDIR="${SALLYPORT_LIBEXECDIR}")
target_link_libraries(sp_cli PUBLIC m)
