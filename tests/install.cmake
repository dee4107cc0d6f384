# Installed are the program and what it opens at run time, where it looks for it.
add_test(NAME install COMMAND sh -ec "rm -rf installed
  ${CMAKE_COMMAND} --install . --prefix installed > /dev/null
  installed/bin/soulchat --help > /dev/null
  for library in lib/libsoulchat_*.so; do
    test $library = lib/libsoulchat_emu.so || test -e installed/$library || exit 1
  done" WORKING_DIRECTORY ${CMAKE_BINARY_DIR})
