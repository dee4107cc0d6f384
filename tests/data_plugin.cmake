# The test that another program reads our shards through the HDF5 filter plugin. Sanitizers cannot
# be loaded into that program, so the test is for plain builds.
if(NOT SOULCHAT_WITH_HDF5)
  return()
endif()
if(TARGET test_data_h5py)
  add_dependencies(test_data_h5py h5zsoulchat_zstd)
endif()
if(TARGET test_data_h5py AND NOT SOULCHAT_SANITIZE)
  set_tests_properties(test_data_h5py PROPERTIES
                       ENVIRONMENT HDF5_PLUGIN_PATH=${CMAKE_BINARY_DIR}/plugins)
endif()
# HDF5 1.10 forgets to free a block of metadata whose checksum is wrong; the leaks are its own.
set_tests_properties(test_data_shard PROPERTIES ENVIRONMENT
                     LSAN_OPTIONS=suppressions=${CMAKE_CURRENT_SOURCE_DIR}/hdf5_leaks.supp)
if(TARGET replay_shard)
  set_tests_properties(replay_shard PROPERTIES ENVIRONMENT
                       LSAN_OPTIONS=suppressions=${CMAKE_CURRENT_SOURCE_DIR}/hdf5_leaks.supp)
endif()
