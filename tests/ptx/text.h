/* text.h - PTX as words: no comments, no layout. */
#ifndef TESTS_PTX_TEXT_H
#define TESTS_PTX_TEXT_H

#include <cstdint>
#include <string>
#include <vector>

namespace ptx
{

/* A name, an opcode, a directive or a number, with its dots; one sign; or "a string". */
struct word {
    std::string text;
    int line;
};

/* The words of a text, taken one by one. All faults are std::runtime_error "line N: ...". */
class reader
{
  public:
    explicit reader(const std::string &text);

    bool at_end() const { return next == words.size(); }
    /* The next word; "" at the end. */
    const std::string &peek() const;
    int line() const;
    std::string take();
    /* Whether the next word is this one, which then is taken. */
    bool skip(const char *text);
    void require(const char *text);
    int64_t number(); /* with its sign */
    /* The rest of the line that the last word came from. */
    std::vector<std::string> rest_of_line();
    [[noreturn]] void fail(const std::string &what) const;

  private:
    std::vector<word> words;
    size_t next = 0;
};

[[noreturn]] void fail_at(int line, const std::string &what);

} // namespace ptx

#endif
