# Tests on several ranks share a fixture that forks them, and a program that is all of them.
add_library(soulchat_ranks_fixture STATIC ranks_fixture.c)
target_link_libraries(soulchat_ranks_fixture PUBLIC soulchat_testing soulchat_train
                      PRIVATE soulchat_options)
add_library(soulchat_ranked_runs STATIC ranked_runs.c)
target_link_libraries(soulchat_ranked_runs PUBLIC soulchat_train_fixture soulchat_ranks_fixture
                      PRIVATE soulchat_options)
add_executable(ranks_program ranks_program.c)
set_target_properties(ranks_program PROPERTIES LINKER_LANGUAGE CXX
                      RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(ranks_program PRIVATE soulchat_train soulchat_options)

foreach(subject comm rendezvous watchdog)
  target_link_libraries(test_train_${subject} PRIVATE soulchat_ranks_fixture)
  target_compile_definitions(test_train_${subject} PRIVATE
                             RANKS_PROGRAM="$<TARGET_FILE:ranks_program>")
  add_dependencies(test_train_${subject} ranks_program)
endforeach()

# NCCL without GPUs.
add_library(fake_nccl MODULE fake_nccl.c ${CMAKE_SOURCE_DIR}/train/comm_ring.c)
target_include_directories(fake_nccl PRIVATE
  $<TARGET_PROPERTY:soulchat_train,INTERFACE_INCLUDE_DIRECTORIES>
  $<TARGET_PROPERTY:soulchat_kernels,INTERFACE_INCLUDE_DIRECTORIES>
  $<TARGET_PROPERTY:soulchat_base,INTERFACE_INCLUDE_DIRECTORIES>)
target_link_libraries(fake_nccl PRIVATE soulchat_options)
foreach(subject comm_nccl comm_gpu scale)
  if(TARGET test_train_${subject})
    target_link_libraries(test_train_${subject} PRIVATE soulchat_ranks_fixture)
    target_compile_definitions(test_train_${subject} PRIVATE FAKE_NCCL="$<TARGET_FILE:fake_nccl>")
    add_dependencies(test_train_${subject} fake_nccl)
  endif()
endforeach()
foreach(subject sixteen lost)
  if(TARGET test_train_${subject})
    target_link_libraries(test_train_${subject} PRIVATE soulchat_ranked_runs)
  endif()
endforeach()
foreach(subject exchange zero)
  if(TARGET test_train_${subject})
    target_link_libraries(test_train_${subject} PRIVATE soulchat_ranks_fixture)
  endif()
endforeach()

# Over MPI, where there is one: the same bodies, and everything together.
if(soulchat_has_mpi)
  set(mpirun ${MPIEXEC_EXECUTABLE} --allow-run-as-root --oversubscribe --mca btl self,vader
      ${MPIEXEC_NUMPROC_FLAG})
  add_test(NAME train_comm_mpi COMMAND ${mpirun} 3 $<TARGET_FILE:test_train_comm> mpi)
  add_test(NAME train_ranks_mpi COMMAND ${mpirun} 3 $<TARGET_FILE:ranks_program> --steps 20)
  set_tests_properties(train_ranks_mpi PROPERTIES PASS_REGULAR_EXPRESSION
                       "done: 3 ranks by mpirun over mpi")
  set_tests_properties(train_comm_mpi train_ranks_mpi PROPERTIES TIMEOUT 60
                       ENVIRONMENT "OMP_WAIT_POLICY=passive;ASAN_OPTIONS=detect_leaks=0")
  # Each rank checks what it is told. That mpirun then fails, for ranks that did not end MPI, is as
  # it should be.
  foreach(sizes short long)
    add_test(NAME train_comm_mpi_${sizes} COMMAND ${mpirun} 2
             $<TARGET_FILE:test_train_comm> mpi-${sizes})
    set_tests_properties(train_comm_mpi_${sizes} PROPERTIES TIMEOUT 60
                         ENVIRONMENT "ASAN_OPTIONS=detect_leaks=0"
                         PASS_REGULAR_EXPRESSION "PASSED  . 1 test.*PASSED  . 1 test"
                         FAIL_REGULAR_EXPRESSION "FAILED  ")
  endforeach()
endif()
