# The tests of training share a corpus, a model and settings, and the float64 reference operators.
add_library(soulchat_train_fixture STATIC train_fixture.c train_runs.c state_rig.c lazy_dev.c
                                          batch_fixture.c ckpt_fixture.c)
target_link_libraries(soulchat_train_fixture PUBLIC soulchat_testing soulchat_train soulchat_ref
                      PRIVATE soulchat_options)
foreach(subject ckpt ckpt_diff lanes optim state formats step loop save memory device owner exchange
                zero guard_run checksum base_loss)
  if(TARGET test_train_${subject})
    target_link_libraries(test_train_${subject} PRIVATE soulchat_train_fixture)
  endif()
endforeach()
foreach(subject checksum base_loss)
  if(TARGET test_train_${subject})
    target_link_libraries(test_train_${subject} PRIVATE soulchat_ranks_fixture)
  endif()
endforeach()
# Some sixty runs on the emulator.
if(TARGET test_train_device)
  set_tests_properties(test_train_device PROPERTIES TIMEOUT 900)
endif()
