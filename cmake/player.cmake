# sallyport-play: a recording of a desktop for an RDP client; sallyctl starts it.
sallyport_library(sp_player DIRS tracker/player
  LIBS sp_recording PkgConfig::EVENT PkgConfig::LIBSSL PkgConfig::SECCOMP)
# of the relay's folder the parsers, and one leg
foreach(name dvc frame gcc info leg mcs share tls x224)
  target_sources(sp_player PRIVATE ${CMAKE_SOURCE_DIR}/proxy/rdp/${name}.c)
endforeach()
add_executable(sallyport-play tracker/player/main.c)
target_link_libraries(sallyport-play PRIVATE sp_player)
install(TARGETS sallyport-play RUNTIME DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/sallyport)
