# Checkpoints: on several ranks, and what a crash or a failing system call leaves of a save.
if(TARGET test_train_ckpt_ranks)
  target_link_libraries(test_train_ckpt_ranks PRIVATE soulchat_train_fixture soulchat_ranks_fixture)
endif()
if(TARGET test_train_snapshot)
  target_link_libraries(test_train_snapshot PRIVATE soulchat_train_fixture)
endif()
if(TARGET test_train_ckpt_crash)
  target_sources(test_train_ckpt_crash PRIVATE crash_states.c)
  target_link_libraries(test_train_ckpt_crash PRIVATE soulchat_train_fixture)
endif()
# Whole runs in which an allocation fails.
if(TARGET test_train_alloc)
  target_link_libraries(test_train_alloc PRIVATE soulchat_ranked_runs)
endif()
foreach(subject ckpt_crash alloc)
  if(TARGET test_train_${subject})
    target_sources(test_train_${subject} PRIVATE crash_shim.c)
    foreach(call open close pwrite ftruncate fsync rename renameat2 remove unlink mkdir malloc
                 calloc realloc aligned_alloc strdup free getline
                 __getdelim statvfs)
      target_link_options(test_train_${subject} PRIVATE -Wl,--wrap=${call})
    endforeach()
  endif()
endforeach()
if(SOULCHAT_WITH_HDF5)
  add_test(NAME e2e_ckpt COMMAND bash ${CMAKE_SOURCE_DIR}/tests/e2e/ckpt.sh
           WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(e2e_ckpt PROPERTIES TIMEOUT 600 SKIP_RETURN_CODE 77
                       ENVIRONMENT "SOULCHAT=$<TARGET_FILE:soulchat>;OMP_WAIT_POLICY=passive")
endif()
