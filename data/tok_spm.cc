#include "data/tok_spm.h"

#include <sentencepiece_processor.h>

#include <exception>
#include <memory>
#include <new>
#include <vector>

struct tok_spm {
    sentencepiece::SentencePieceProcessor processor;
};

err_t tok_spm_open(struct tok_spm **out, const char *path, const void *bytes, int64_t size)
{
    *out = nullptr;
    try {
        auto spm = std::make_unique<tok_spm>();
        const auto status = spm->processor.LoadFromSerializedProto(
            absl::string_view(static_cast<const char *>(bytes), static_cast<size_t>(size)));
        if (!status.ok()) RAISE(FORMAT, "%s: %s", path, status.ToString().c_str());
        *out = spm.release();
    } catch (const std::bad_alloc &) {
        RAISE(NOMEM, "%s: loading the tokenizer", path);
    } catch (const std::exception &e) {
        RAISE(FORMAT, "%s: %s", path, e.what());
    } catch (...) {
        RAISE(FORMAT, "%s: refused by the SentencePiece library", path);
    }
    return ERR_OK;
}

void tok_spm_close(struct tok_spm *spm) { delete spm; }

err_t tok_spm_encode(const struct tok_spm *spm, struct i32_buf *ids, const char *text,
                     int64_t size)
{
    static_assert(sizeof(int) == sizeof(int32_t), "ids of the library are 32 bit");
    try {
        std::vector<int> found;
        const auto status =
            spm->processor.Encode(absl::string_view(text, static_cast<size_t>(size)), &found);
        if (!status.ok())
            RAISE(FORMAT, "encoding %lld bytes: %s", static_cast<long long>(size),
                  status.ToString().c_str());
        TRY(i32_buf_append(ids, found.data(), static_cast<int64_t>(found.size())));
    } catch (const std::bad_alloc &) {
        RAISE(NOMEM, "encoding %lld bytes of text", static_cast<long long>(size));
    } catch (const std::exception &e) {
        RAISE(FORMAT, "encoding %lld bytes: %s", static_cast<long long>(size), e.what());
    } catch (...) {
        RAISE(FORMAT, "encoding %lld bytes: refused by the SentencePiece library",
              static_cast<long long>(size));
    }
    return ERR_OK;
}
