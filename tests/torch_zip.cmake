# PyTorch files built byte by byte, shared by the tests of their reader.
add_library(soulchat_torch_zip_maker STATIC torch_zip_maker.c)
target_link_libraries(soulchat_torch_zip_maker PUBLIC soulchat_testing soulchat_model
                      PRIVATE soulchat_options)
foreach(subject torch_zip torch_pickle)
  target_link_libraries(test_model_${subject} PRIVATE soulchat_torch_zip_maker)
endforeach()
