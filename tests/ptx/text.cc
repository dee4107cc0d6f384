/* Words of PTX. */
#include "ptx/text.h"

#include <cctype>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace ptx
{

namespace
{

bool in_word(char c)
{
    return isalnum(static_cast<unsigned char>(c)) || (c != '\0' && strchr("_$%.", c) != nullptr);
}

/* The end of what begins at `at` and is no word: white space, a comment; `at` itself: neither. */
size_t past_blank(const std::string &text, size_t at)
{
    if (isspace(static_cast<unsigned char>(text[at]))) return at + 1;
    size_t end = at;
    if (text.compare(at, 2, "//") == 0)
        end = text.find('\n', at);
    else if (text.compare(at, 2, "/*") == 0 && (end = text.find("*/", at + 2)) != std::string::npos)
        end += 2;
    return end == std::string::npos ? text.size() : end;
}

size_t past_word(const std::string &text, size_t at)
{
    size_t end = at + 1;
    if (text[at] == '"') {
        end = text.find('"', at + 1);
        return end == std::string::npos ? text.size() : end + 1;
    }
    if (in_word(text[at]))
        while (end < text.size() && in_word(text[end])) end++;
    return end;
}

} // namespace

void fail_at(int line, const std::string &what)
{
    throw std::runtime_error("line " + std::to_string(line) + ": " + what);
}

reader::reader(const std::string &text)
{
    int line = 1;
    for (size_t at = 0; at < text.size();) {
        const size_t blank = past_blank(text, at);
        const size_t end = blank > at ? blank : past_word(text, at);
        if (blank == at) words.push_back({ text.substr(at, end - at), line });
        for (; at < end; at++) line += text[at] == '\n';
    }
}

const std::string &reader::peek() const
{
    static const std::string none;
    return at_end() ? none : words[next].text;
}

int reader::line() const { return words.empty() ? 1 : words[at_end() ? next - 1 : next].line; }

void reader::fail(const std::string &what) const { fail_at(line(), what); }

std::string reader::take()
{
    if (at_end()) fail("the text ends too early");
    return words[next++].text;
}

bool reader::skip(const char *text)
{
    if (peek() != text) return false;
    next++;
    return true;
}

void reader::require(const char *text)
{
    if (!skip(text)) fail("found '" + peek() + "', expected '" + text + "'");
}

int64_t reader::number()
{
    const bool negative = skip("-");
    const std::string text = take();
    char *end;
    const uint64_t value = strtoull(text.c_str(), &end, 0);
    if (end == text.c_str() || (*end != '\0' && strcmp(end, "U") != 0))
        fail("'" + text + "' is no number");
    return static_cast<int64_t>(negative ? 0 - value : value);
}

std::vector<std::string> reader::rest_of_line()
{
    std::vector<std::string> out;
    const int here = words[next - 1].line;
    while (!at_end() && words[next].line == here) out.push_back(take());
    return out;
}

} // namespace ptx
