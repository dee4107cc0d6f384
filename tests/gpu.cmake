# What accompanies the CUDA backend, as far as it runs without a GPU.
# scripts/gpu_check.sh in small, on the host: every stage that has no need of a GPU.
find_program(PYTHON3 python3)
if(PYTHON3 AND NOT SOULCHAT_SANITIZE)
  add_test(NAME gpu_check_dry_run
           COMMAND scripts/gpu_check.sh --device cpu --tiny --build ${CMAKE_BINARY_DIR}
                   --stages info,smoke,step,peer,bench,plan,equal,learn,conditions
                   --out ${CMAKE_BINARY_DIR}/gpu_check
           WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(gpu_check_dry_run PROPERTIES TIMEOUT 1200
                       ENVIRONMENT OMP_WAIT_POLICY=passive
                       PASS_REGULAR_EXPRESSION "not ok: none"
                       FAIL_REGULAR_EXPRESSION "FAILED")
endif()
if(PYTHON3)
  add_test(NAME gpu_report COMMAND ${PYTHON3} tests/bench/check_report.py
           WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
endif()
# Registers and spills of every kernel on the card that is tuned for; skipped without nvcc.
# scripts/cuda_check.sh by itself does all architectures, in three times the time.
if(PYTHON3 AND NOT SOULCHAT_SANITIZE)
  add_test(NAME cuda_check COMMAND scripts/cuda_check.sh --archs 90a
           WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(cuda_check PROPERTIES TIMEOUT 1800 SKIP_RETURN_CODE 77)
endif()
