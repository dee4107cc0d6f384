# The reader of golden folders: safetensors, and HDF5 where the build has it.
set(golden_h5 golden_h5_none.c)
if(SOULCHAT_WITH_HDF5)
  set(golden_h5 golden_h5.c)
endif()
add_library(soulchat_golden STATIC golden.c golden_safetensors.c ${golden_h5})
target_include_directories(soulchat_golden PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(soulchat_golden PUBLIC soulchat_model soulchat_hdf5 PRIVATE soulchat_options)
target_link_libraries(test_data_seq PRIVATE soulchat_golden)
