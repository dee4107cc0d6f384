# Checkpoints: on several ranks, and what a crash or a failing system call leaves of a save.
if(TARGET test_train_ckpt_ranks)
  target_link_libraries(test_train_ckpt_ranks PRIVATE soulchat_train_fixture soulchat_ranks_fixture)
endif()
if(TARGET test_train_ckpt_crash)
  target_sources(test_train_ckpt_crash PRIVATE crash_shim.c crash_states.c)
  target_link_libraries(test_train_ckpt_crash PRIVATE soulchat_train_fixture)
  foreach(call open close pwrite ftruncate fsync rename renameat2 remove unlink mkdir malloc calloc
               realloc aligned_alloc strdup free)
    target_link_options(test_train_ckpt_crash PRIVATE -Wl,--wrap=${call})
  endforeach()
endif()
