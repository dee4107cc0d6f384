# The PyTorch peer of the benchmarks computes the same; skipped where python3 has no PyTorch.
set(SOULCHAT_PEER_PYTHON python3 CACHE STRING "The python3 that has PyTorch, for the peer's test")
find_program(SOULCHAT_PEER_PYTHON_FOUND ${SOULCHAT_PEER_PYTHON})
mark_as_advanced(SOULCHAT_PEER_PYTHON_FOUND)
if(SOULCHAT_PEER_PYTHON_FOUND)
  add_test(NAME peer COMMAND ${SOULCHAT_PEER_PYTHON} tests/peer/check_peer.py
                             $<TARGET_FILE:soulchat>
           WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(peer PROPERTIES TIMEOUT 900 SKIP_RETURN_CODE 77
                       ENVIRONMENT "OMP_WAIT_POLICY=passive;PYTHONDONTWRITEBYTECODE=1")
endif()
