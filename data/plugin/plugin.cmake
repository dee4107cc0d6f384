# The HDF5 filter plugin that lets h5py, h5dump and other programs read our shards.
add_library(h5zsoulchat_zstd MODULE ${CMAKE_SOURCE_DIR}/data/h5z_zstd.c
                                    ${CMAKE_SOURCE_DIR}/data/plugin/h5pl_zstd.c)
target_include_directories(h5zsoulchat_zstd PRIVATE ${CMAKE_BINARY_DIR}/include/data)
target_link_libraries(h5zsoulchat_zstd PRIVATE PkgConfig::hdf5 PkgConfig::zstd soulchat_options)
set_target_properties(h5zsoulchat_zstd PROPERTIES
                      LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/plugins)
include(GNUInstallDirs)
install(TARGETS h5zsoulchat_zstd LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/soulchat/plugins)
