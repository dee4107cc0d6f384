/* A text becomes kernels: declarations, and instructions with their operands' places. */
#include "ptx/module.h"

#include "ptx/operations.h"
#include "ptx/text.h"

#include <cstdlib>
#include <map>
#include <stdexcept>

namespace ptx
{

namespace
{

constexpr uint32_t REGISTER_ALIGN = 64;

int64_t aligned(int64_t at, int64_t align) { return (at + align - 1) / align * align; }

/* Bytes of a type: ".u32" 4. 0: it is none. */
int64_t type_bytes(const std::string &type)
{
    if (type == ".pred") return 4; /* a mask */
    if (type.size() < 3 || strchr("bsuf", type[1]) == nullptr) return 0;
    return atoi(type.c_str() + 2) / 8;
}

/* `.align 8 .b8 name[152]`, up to what follows it. */
declared read_declared(reader &in)
{
    declared out = { "", 0, 0, 0 };
    int64_t align = 0;
    while (in.peek()[0] == '.') {
        const std::string word = in.take();
        const int64_t bytes = type_bytes(word);
        if (bytes > 0) out.element = bytes;
        if (word == ".align") align = in.number();
        if (word == ".ptr") { /* about the memory it points to */
            while (in.peek()[0] == '.')
                if (in.take() == ".align") (void)in.number();
        }
    }
    if (out.element == 0) in.fail("a declaration without a type");
    out.name = in.take();
    out.bytes = out.element;
    if (in.skip("[")) {
        out.bytes = in.peek() == "]" ? 0 : out.element * in.number();
        in.require("]");
    }
    out.align = align > 0 ? align : out.element;
    return out;
}

/* ---- one kernel ---- */

struct operand {
    enum { NAME, NUMBER, ADDRESS } kind;
    std::string name;   /* "" in an ADDRESS without one */
    int64_t number;     /* value, or what is added to the name */
    int64_t wide_bytes; /* of a floating-point number; 0: an integer of any width */
};

struct statement {
    std::string name;
    std::string guard;
    bool guard_not;
    std::vector<operand> operands;
    int line, file, file_line;
};

struct register_file {
    char letter;
    int64_t lane_bytes;
};

class kernel_reader
{
  public:
    kernel_reader(reader &in_, module &home_, const operation_table &operations_)
        : in(in_), home(home_), operations(operations_)
    {
    }

    code read();

  private:
    void place_shared();
    void read_params();
    void read_limits();
    void read_body();
    void read_directive(const std::string &word);
    void read_registers();
    void read_instruction(std::string word);
    void read_operand(std::vector<operand> *to);
    void decode(const statement &);
    bool fits(inst *out, const operation &, const statement &);
    bool place_operand(inst *out, int index, char letter, const operand &);
    bool register_place(uint32_t *out, const std::string &name, char letter);
    uint32_t take_place(int64_t bytes);
    uint32_t constant_place(uint64_t bits, uint32_t bytes);
    bool symbol_value(int64_t *out, const std::string &name);

    reader &in;
    module &home;
    const operation_table &operations;
    code out = {};
    std::map<std::string, register_file> files; /* "%r": how its registers are */
    std::map<std::string, std::pair<uint32_t, char>> registers;
    std::map<std::pair<uint64_t, uint32_t>, uint32_t> constants;
    std::map<std::string, int64_t> param_offsets, shared_offsets, labels;
    std::map<std::string, declared> shared;
    std::vector<statement> statements;
    int file = 0, file_line = 0;
};

code kernel_reader::read()
{
    out.name = in.take();
    out.threads_max = 1024;
    out.files = &home.files;
    shared = home.shared;
    read_params();
    read_limits();
    read_body();
    place_shared();
    for (const statement &s : statements) decode(s);
    if (out.insts.empty() || out.insts.back().run != operations.find("ret")->second.run)
        in.fail("kernel " + out.name + " does not end with ret");
    return std::move(out);
}

/* The arrays that the kernel names; the dynamic one begins where they end. */
void kernel_reader::place_shared()
{
    for (const statement &s : statements)
        for (const operand &o : s.operands) {
            const auto known = shared.find(o.name);
            if (known == shared.end() || shared_offsets.count(o.name)) continue;
            const declared &d = known->second;
            if (d.bytes == 0) continue;
            out.shared_bytes = aligned(out.shared_bytes, d.align);
            shared_offsets[o.name] = out.shared_bytes;
            out.shared_bytes += d.bytes;
        }
    out.shared_bytes = aligned(out.shared_bytes, 16);
}

void kernel_reader::read_params()
{
    in.require("(");
    while (!in.skip(")")) {
        in.require(".param");
        const declared d = read_declared(in);
        const int64_t at = aligned(out.param_bytes, d.align);
        out.params.push_back({ at, d.bytes, d.align });
        param_offsets[d.name] = at;
        out.param_bytes = at + d.bytes;
        in.skip(",");
    }
}

/* `.maxntid 256, 1, 1` and what else stands before the body. */
void kernel_reader::read_limits()
{
    while (!in.skip("{")) {
        const std::string word = in.take();
        if (word != ".maxntid" && word != ".minnctapersm") in.fail("unknown directive " + word);
        int64_t product = in.number();
        while (in.skip(",")) product *= in.number();
        if (word == ".maxntid") out.threads_max = product;
    }
}

void kernel_reader::read_body()
{
    for (int depth = 1; depth > 0;) {
        if (in.skip("{"))
            depth++;
        else if (in.skip("}"))
            depth--;
        else if (in.peek()[0] == '.')
            read_directive(in.take());
        else
            read_instruction(in.peek() == "@" ? "" : in.take());
    }
}

void kernel_reader::read_directive(const std::string &word)
{
    if (word == ".reg") {
        read_registers();
    } else if (word == ".shared") {
        const declared d = read_declared(in);
        shared[d.name] = d;
        in.require(";");
    } else if (word == ".loc") {
        file = static_cast<int>(in.number());
        file_line = static_cast<int>(in.number());
        (void)in.rest_of_line();
    } else if (word == ".pragma") {
        (void)in.take();
        in.require(";");
    } else {
        in.fail("unknown directive " + word);
    }
}

/* `.reg .b32 %r<14>;` */
void kernel_reader::read_registers()
{
    const std::string type = in.take(), name = in.take();
    const int64_t bytes = type_bytes(type);
    const char letter = type == ".pred" ? 'p' : bytes == 2 ? 'h' : bytes == 4 ? 'w' : 'l';
    if (bytes < 2) in.fail("registers of type " + type);
    if (!files.emplace(name, register_file{ letter, bytes }).second)
        in.fail("registers " + name + " are declared twice");
    in.require("<");
    (void)in.number();
    in.require(">");
    in.require(";");
}

void kernel_reader::read_operand(std::vector<operand> *to)
{
    if (in.skip("{")) {
        while (!in.skip("}")) {
            read_operand(to);
            in.skip(",");
        }
        return;
    }
    operand o = { operand::NAME, "", 0, 0 };
    const bool is_address = in.skip("[");
    const std::string &word = in.peek();
    const bool is_float = word[0] == '0' && word.size() > 1 && strchr("fd", word[1]) != nullptr;
    if (is_float) {
        o.kind = operand::NUMBER;
        o.wide_bytes = word[1] == 'f' ? 4 : 8;
        o.number = static_cast<int64_t>(strtoull(in.take().c_str() + 2, nullptr, 16));
    } else if (word == "-" || isdigit(static_cast<unsigned char>(word[0]))) {
        o.kind = operand::NUMBER;
        o.number = in.number();
    } else {
        o.name = in.take();
        if (in.skip("+")) o.number = in.number();
    }
    if (is_address) {
        in.require("]");
        o.kind = operand::ADDRESS;
    }
    to->push_back(o);
    if (in.skip("|")) read_operand(to);
}

/* What the cache should do does not change what an access does. */
std::string without_cache(std::string name)
{
    const size_t at = name.find(".wb.");
    return at == std::string::npos ? name : name.erase(at, 3);
}

void kernel_reader::read_instruction(std::string word)
{
    statement s = { word, "", false, {}, in.line(), file, file_line };
    if (!word.empty() && in.skip(":")) {
        if (!labels.emplace(word, static_cast<int64_t>(statements.size())).second)
            in.fail("label " + word + " twice");
        return;
    }
    if (in.skip("@")) {
        s.guard_not = in.skip("!");
        s.guard = in.take();
        s.name = in.take();
    }
    s.name = without_cache(s.name);
    while (!in.skip(";")) {
        read_operand(&s.operands);
        in.skip(",");
    }
    statements.push_back(s);
}

/* ---- operands ---- */

uint32_t kernel_reader::take_place(int64_t bytes)
{
    const uint32_t place = out.register_bytes;
    out.register_bytes += static_cast<uint32_t>(aligned(bytes, REGISTER_ALIGN));
    return place;
}

uint32_t kernel_reader::constant_place(uint64_t bits, uint32_t bytes)
{
    if (bytes < 8) bits &= (UINT64_C(1) << (8 * bytes)) - 1;
    const auto known = constants.find({ bits, bytes });
    if (known != constants.end()) return known->second;
    const uint32_t place = take_place(static_cast<int64_t>(bytes) * WARP);
    constants[{ bits, bytes }] = place;
    out.constants.push_back({ place, bytes, bits });
    return place;
}

bool kernel_reader::register_place(uint32_t *place, const std::string &name, char letter)
{
    const auto known = registers.find(name);
    if (known != registers.end()) {
        *place = known->second.first;
        return known->second.second == letter;
    }
    const char *const kinds[] = { "%tid.", "%ntid.", "%ctaid.", "%nctaid." };
    for (int k = 0; k < 4; k++) {
        const size_t length = strlen(kinds[k]);
        if (name.compare(0, length, kinds[k]) != 0 || name.size() != length + 1) continue;
        *place = take_place(4 * WARP);
        out.specials.push_back({ *place, static_cast<special>(k), name[length] - 'x' });
        registers[name] = { *place, 'w' };
        return letter == 'w';
    }
    const auto file_of = files.find(name.substr(0, name.find_first_of("0123456789")));
    if (file_of == files.end()) return false;
    const register_file &f = file_of->second;
    *place = take_place(f.letter == 'p' ? 4 : f.lane_bytes * WARP);
    registers[name] = { *place, f.letter };
    return f.letter == letter;
}

/* A variable's address in its space. */
bool kernel_reader::symbol_value(int64_t *value, const std::string &name)
{
    if (param_offsets.count(name)) {
        *value = param_offsets[name];
    } else if (home.variables.count(name)) {
        *value = static_cast<int64_t>(reinterpret_cast<uintptr_t>(home.variables[name].data()));
    } else if (shared.count(name)) {
        *value = shared_offsets.count(name) ? shared_offsets[name] : out.shared_bytes;
    } else {
        return false;
    }
    return true;
}

bool kernel_reader::place_operand(inst *to, int index, char letter, const operand &o)
{
    uint32_t *const place = &to->at[index];
    const bool is_register = o.name[0] == '%';
    int64_t value = o.number;
    if (letter == 'i') {
        to->number = o.number;
        return o.kind == operand::NUMBER;
    }
    if (letter == 'L') {
        if (o.kind != operand::NAME || !labels.count(o.name)) return false;
        to->number = labels[o.name];
        return true;
    }
    if (letter == 's' || letter == 'g')
        return o.kind == operand::ADDRESS && o.number == 0 &&
               register_place(place, o.name, letter == 's' ? 'w' : 'l');
    if (letter == 'm') {
        if (o.kind != operand::ADDRESS) return false;
        to->number = o.number;
        if (is_register) {
            to->narrow = register_place(place, o.name, 'w');
            return to->narrow || register_place(place, o.name, 'l');
        }
        if (!symbol_value(&value, o.name)) return false;
        *place = constant_place(static_cast<uint64_t>(value), 8);
        return true;
    }
    if (o.kind == operand::ADDRESS) return false;
    if (is_register) return register_place(place, o.name, letter);
    const uint32_t bytes = letter == 'h' ? 2 : letter == 'w' ? 4 : 8;
    if (letter == 'p') { /* true or false, a mask */
        *place = constant_place(o.number != 0 ? ALL_LANES : 0, 4);
        return o.kind == operand::NUMBER;
    }
    if (o.wide_bytes != 0 && o.wide_bytes != bytes) return false;
    if (o.kind == operand::NAME && !symbol_value(&value, o.name)) return false;
    *place = constant_place(static_cast<uint64_t>(value + (o.name.empty() ? 0 : o.number)), bytes);
    return true;
}

bool kernel_reader::fits(inst *to, const operation &op, const statement &s)
{
    if (op.shape.size() != s.operands.size()) return false;
    to->run = op.run;
    for (size_t k = 0; k < op.shape.size(); k++)
        if (!place_operand(to, static_cast<int>(k), op.shape[k], s.operands[k])) return false;
    return true;
}

void kernel_reader::decode(const statement &s)
{
    inst made = {};
    made.guard = NO_GUARD;
    made.guard_not = s.guard_not;
    made.line = s.line;
    made.file = s.file;
    made.file_line = s.file_line;
    if (!s.guard.empty() && !register_place(&made.guard, s.guard, 'p'))
        fail_at(s.line, "the guard " + s.guard + " is no predicate");
    const auto named = operations.equal_range(s.name);
    if (named.first == named.second) fail_at(s.line, "unknown instruction " + s.name);
    for (auto op = named.first; op != named.second; op++)
        if (fits(&made, op->second, s)) {
            out.insts.push_back(made);
            return;
        }
    fail_at(s.line, "operands that are not understood: " + s.name);
}

/* ---- the module ---- */

operation_table all_operations()
{
    operation_table t;
    add_arithmetic(t);
    add_floating(t);
    add_memory(t);
    add_warp(t);
    add_matrix(t);
    return t;
}

/* `.global .align 4 .b8 name[16] = {1, 2};` */
void read_variable(reader &in, module &home)
{
    const declared d = read_declared(in);
    std::vector<unsigned char> &bytes = home.variables[d.name];
    /* The allocator aligns to 16. */
    if (d.align > 16) in.fail("variable " + d.name + " is aligned to more than 16 bytes");
    bytes.resize(static_cast<size_t>(d.bytes));
    if (in.skip("=")) {
        const bool is_list = in.skip("{");
        for (size_t at = 0; !in.skip(";"); at += static_cast<size_t>(d.element)) {
            const int64_t x = in.number();
            if (at + static_cast<size_t>(d.element) > bytes.size()) in.fail("too many numbers");
            memcpy(bytes.data() + at, &x, static_cast<size_t>(d.element));
            if (is_list && !in.skip(",")) in.require("}");
        }
        return;
    }
    in.require(";");
}

void read_file(reader &in, module &home)
{
    const size_t number = static_cast<size_t>(in.number());
    std::string name = in.take();
    (void)in.rest_of_line();
    name = name.substr(1, name.size() - 2);
    if (home.files.size() <= number) home.files.resize(number + 1);
    home.files[number] = name.substr(name.rfind('/') + 1);
}

void read_module(reader &in, module &home)
{
    const operation_table operations = all_operations();
    while (!in.at_end()) {
        const std::string word = in.take();
        if (word == ".version" || word == ".target" || word == ".address_size") {
            (void)in.rest_of_line();
        } else if (word == ".file") {
            read_file(in, home);
        } else if (word == ".section") {
            while (!in.skip("}")) (void)in.take();
        } else if (word == ".shared") {
            const declared d = read_declared(in);
            home.shared[d.name] = d;
            in.require(";");
        } else if (word == ".global" || word == ".const") {
            read_variable(in, home);
        } else if (word == ".entry") {
            home.kernels.push_back(
                std::make_unique<code>(kernel_reader(in, home, operations).read()));
        } else if (word != ".visible" && word != ".extern" && word != ".weak") {
            fail_at(in.line(), "unknown directive " + word);
        }
    }
}

} // namespace

void module_delete::operator()(module *m) const { delete m; }

module_ptr load(const std::string &text, std::string *error)
{
    module_ptr out(new module());
    try {
        reader in(text);
        read_module(in, *out);
        error->clear();
        return out;
    } catch (const std::runtime_error &e) {
        *error = std::string("PTX ") + e.what();
        return nullptr;
    }
}

std::vector<const kernel *> kernels(const module &m)
{
    std::vector<const kernel *> out;
    for (const auto &k : m.kernels) out.push_back(k.get());
    return out;
}

const kernel *find(const module &m, const std::string &name)
{
    for (const auto &k : m.kernels)
        if (k->name == name) return k.get();
    return nullptr;
}

void *variable(module &m, const std::string &name, int64_t *bytes)
{
    const auto known = m.variables.find(name);
    if (known == m.variables.end()) return nullptr;
    *bytes = static_cast<int64_t>(known->second.size());
    return known->second.data();
}

int64_t instructions(const module &m) { return m.instructions; }

} // namespace ptx
