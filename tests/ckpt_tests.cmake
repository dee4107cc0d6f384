# Checkpoints: on several ranks, and what a crash or a failing system call leaves of a save.
if(TARGET test_train_ckpt_ranks)
  target_link_libraries(test_train_ckpt_ranks PRIVATE soulchat_train_fixture soulchat_ranks_fixture)
endif()
