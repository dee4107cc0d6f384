# The HDF5 filter plugin, and the test that another program reads our shards with it. Sanitizers cannot be
# loaded into that program, so the test is for plain builds.
if(NOT TARGET h5zsoulchat_zstd)
  include(${CMAKE_SOURCE_DIR}/data/plugin/plugin.cmake)
endif()
add_dependencies(test_data_h5py h5zsoulchat_zstd)
if(NOT SOULCHAT_SANITIZE)
  set_tests_properties(test_data_h5py PROPERTIES
                       ENVIRONMENT HDF5_PLUGIN_PATH=${CMAKE_BINARY_DIR}/plugins)
endif()
