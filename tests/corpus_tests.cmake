# The tests of corpora show what was read as text, and pack files, with one fixture.
foreach(name test_data_corpus test_data_corpus_text test_data_corpus_hostile test_data_input)
  if(TARGET ${name})
    target_sources(${name} PRIVATE corpus_fixture.c)
  endif()
endforeach()
