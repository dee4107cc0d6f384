# The MPI communicator as a library of its own, found at run time: the same program runs where there
# is no MPI.
set(SOULCHAT_WITH_MPI AUTO CACHE STRING "CPU ranks on several machines, over MPI: AUTO, ON or OFF")
set_property(CACHE SOULCHAT_WITH_MPI PROPERTY STRINGS AUTO ON OFF)
set(soulchat_has_mpi FALSE)
if(SOULCHAT_WITH_MPI STREQUAL "ON")
  find_package(MPI REQUIRED COMPONENTS C)
elseif(SOULCHAT_WITH_MPI STREQUAL "AUTO")
  find_package(MPI QUIET COMPONENTS C)
endif()
if(MPI_C_FOUND AND NOT SOULCHAT_WITH_MPI STREQUAL "OFF")
  set(soulchat_has_mpi TRUE)
  message(STATUS "MPI: ${MPI_C_LIBRARY_VERSION_STRING} ${MPI_C_HEADER_DIR}")
  add_library(soulchat_mpi MODULE ${CMAKE_CURRENT_LIST_DIR}/comm_mpi_lib.c)
  target_include_directories(soulchat_mpi PRIVATE
    $<TARGET_PROPERTY:soulchat_train,INTERFACE_INCLUDE_DIRECTORIES>
    $<TARGET_PROPERTY:soulchat_kernels,INTERFACE_INCLUDE_DIRECTORIES>
    $<TARGET_PROPERTY:soulchat_base,INTERFACE_INCLUDE_DIRECTORIES>)
  target_link_libraries(soulchat_mpi PRIVATE MPI::MPI_C soulchat_options)
  set_target_properties(soulchat_mpi PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
  add_dependencies(soulchat_train soulchat_mpi)
else()
  message(STATUS "MPI: none; CPU ranks run on one machine (SOULCHAT_WITH_MPI)")
endif()
