# The static rules as a test (scripts/tidy.py); left out where there is no python3.
find_program(PYTHON3 python3)
if(PYTHON3)
  add_test(NAME tidy COMMAND ${PYTHON3} scripts/tidy.py WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
endif()
