/* Each cleaning rule: what it finds, what it leaves alone, and what its switch does. */
#include "testing.h"

#include "base/check.h"
#include "data/clean.h"
#include "data/clean_text.h"

#include <stdio.h>
#include <string.h>

/* One dialogue of a question and replies, by turns: "?text" is the client's, "!text" the
 * counsellor's, "#text" the system's; NULL ends it. */
struct tidied {
    struct clean_dialogue d;
    struct clean_found found;
    char text[2048]; /* the turns that are left, in the same form, joined by | */
};

#define LONG 300 /* characters of the longest turn */

static void tidy(struct tidied *t, const char *actions, const char *const *turns)
{
    struct clean_rules *rules;
    struct turn_text texts[16];
    int64_t count = 0;
    for (; turns[count] != NULL; count++)
        texts[count] = (struct turn_text){ turns[count][0] == '?'   ? ROLE_CLIENT
                                           : turns[count][0] == '!' ? ROLE_COUNSELLOR
                                                                    : ROLE_SYSTEM,
                                           turns[count] + 1, (int64_t)strlen(turns[count] + 1) };
    const struct dialogue_text from = { .turns = texts, .turn_count = count };
    const struct clean_spec spec = { .actions = actions,
                                     .long_turn = LONG,
                                     .client_name = "用户",
                                     .counsellor_name = "心理咨询师" };
    clean_clear(&t->d);
    memset(t, 0, sizeof *t);
    assert_ok(clean_rules_open(&rules, &spec));
    assert_ok(clean_load(&t->d, &from));
    clean_apply(rules, &t->d, &t->found);
    clean_rules_close(rules);
    if (t->d.dropped) {
        strcpy(t->text, "dropped");
        return;
    }
    for (int64_t i = 0; i < t->d.turn_count; i++) {
        const struct clean_turn *turn = &t->d.turns[i];
        snprintf(t->text + strlen(t->text), sizeof t->text - strlen(t->text), "%s%c%.*s%s%s",
                 i ? "|" : "", turn->role == ROLE_CLIENT ? '?' : '!', (int)turn->size, turn->text,
                 turn->flags & CLEAN_TURN_CONTEXT ? "<context>" : "",
                 turn->flags & CLEAN_TURN_CRISIS ? "<crisis>" : "");
    }
}

/* Characters are counted, not bytes: the most a turn has, and one more. */
static void test_long_turn(void **state)
{
    (void)state;
    struct tidied t = { 0 };
    char most[3 * LONG + 8] = "?", more[3 * LONG + 16], left[3 * LONG + 32];
    for (int i = 0; i < LONG; i++) strcat(most, "长");
    snprintf(more, sizeof more, "%s长", most);
    const char *const fits[] = { most, "!b", NULL }, *const exceeds[] = { more, "!b", NULL };
    tidy(&t, "long_turn=drop", fits);
    assert_int_equal(t.found.count[CLEAN_LONG_TURN], 0);
    assert_false(t.d.dropped);
    tidy(&t, "long_turn=drop", exceeds);
    assert_int_equal(t.found.count[CLEAN_LONG_TURN], 1);
    assert_true(t.d.dropped);
    tidy(&t, "", exceeds);
    assert_int_equal(t.found.count[CLEAN_LONG_TURN], 1);
    snprintf(left, sizeof left, "%s|!b", more);
    assert_string_equal(t.text, left);
    clean_clear(&t.d);
}

#define TURNS(...)                                                                                 \
    (const char *const[]) { __VA_ARGS__, NULL }

/* The rule found so much, and this is what is left. */
#define assert_tidied(rule, times, actions, left, ...)                                             \
    do {                                                                                           \
        tidy(&t, actions, TURNS(__VA_ARGS__));                                                     \
        assert_string_equal(t.text, left);                                                         \
        assert_int_equal(t.found.count[rule], times);                                              \
    } while (0)

static struct tidied t; /* 50 KB of examples */

static void test_form(void **state)
{
    (void)state;
    assert_tidied(CLEAN_SYSTEM_TURN, 1, "", "?a|!b", "#x", "?a", "!b");
    assert_tidied(CLEAN_LINE_END, 1, "", "?a\nb|!c", "?a\r\nb", "!c");
    assert_tidied(CLEAN_NEWLINES, 1, "", "?a\nb|!c", "?a\n\n\nb", "!c");
    assert_tidied(CLEAN_NEWLINES, 0, "newlines=off", "?a\n\nb|!c", "?a\n\nb", "!c");
    assert_tidied(CLEAN_STRIP, 2, "", "?a|!c", "?\xe3\x80\x80 a\n", "!c ");
    assert_tidied(CLEAN_EMPTY_TURN, 1, "", "?a|!c", "?a", "? ", "!c");
    assert_tidied(CLEAN_MERGE, 1, "", "?a\nb|!c", "?a", "?b", "!c");
    assert_tidied(CLEAN_CONTROL, 1, "", "?ab|!c",
                  "?a\x01\xe2\x80\x8b\xc2\x85"
                  "b\x7f",
                  "!c");
    assert_tidied(CLEAN_CONTROL, 0, "", "?👩‍⚕️|!c", "?👩‍⚕️",
                  "!c"); /* joiners make emoji */
    assert_tidied(CLEAN_NO_REPLY, 1, "", "dropped", "?a");
    assert_tidied(CLEAN_NO_REPLY, 1, "", "dropped", "!a");
    assert_tidied(CLEAN_COUNSELLOR_FIRST, 1, "", "!a|?b|!c", "!a", "?b", "!c");
    assert_tidied(CLEAN_COUNSELLOR_FIRST, 1, "counsellor_first=fix", "?b|!c", "!a", "?b", "!c");
    assert_tidied(CLEAN_COUNSELLOR_FIRST, 1, "counsellor_first=drop", "dropped", "!a", "?b", "!c");
    assert_tidied(CLEAN_CLIENT_LAST, 1, "", "?a|!b|?c", "?a", "!b", "?c");
    assert_tidied(CLEAN_CLIENT_LAST, 1, "client_last=fix", "?a|!b", "?a", "!b", "?c");
    /* What is left must still have a reply. */
    assert_tidied(CLEAN_NO_REPLY, 1, "counsellor_first=fix", "dropped", "!a", "?b");
    clean_clear(&t.d);
}

static void test_no_turn(void **state)
{
    (void)state;
    const char *const none[] = { NULL };
    tidy(&t, "", none);
    assert_true(t.d.dropped);
    assert_int_equal(t.found.count[CLEAN_NO_TURN], 1);
}

static void test_characters(void **state)
{
    (void)state;
    assert_tidied(CLEAN_HTML, 1, "", "?a\nb\n & <3 x<y|!c",
                  "?<p class=\"x\">a<br/>b</p> &amp; &lt;3 x<y", "!c");
    assert_tidied(CLEAN_HTML, 1, "", "?它's 你|!c", "?它&#39;s &#x4f60;", "!c");
    assert_tidied(CLEAN_HTML, 0, "", "?<开心> a<d> c>d &c; &#0; &#xd800;|!c",
                  "?<开心> a<d> c>d &c; &#0; &#xd800;", "!c");
    assert_tidied(CLEAN_HTML, 0, "html=off", "?a<br>b|!c", "?a<br>b", "!c");
    /* 你好 as UTF-8, read as Latin-1 and as Windows-1252. */
    assert_tidied(CLEAN_MOJIBAKE, 1, "", "?你好|!c",
                  "?\xc3\xa4\xc2\xbd\xc2\xa0\xc3\xa5\xc2\xa5\xc2\xbd", "!c");
    assert_tidied(CLEAN_MOJIBAKE, 1, "", "?一|!c", "?ä¸\xe2\x82\xac", "!c");
    assert_tidied(CLEAN_MOJIBAKE, 0, "", "?café à la|!c", "?café à la", "!c");
    assert_tidied(CLEAN_GARBLED, 1, "", "dropped", "?a\xef\xbf\xbd", "!c");
    assert_tidied(CLEAN_GARBLED, 1, "garbled=keep", "?锟斤拷|!c", "?锟斤拷", "!c");
    assert_tidied(CLEAN_LONG_TURN, 0, "", "?你好|!c", "?你好", "!c");
    clean_clear(&t.d);
}

static void test_speakers(void **state)
{
    (void)state;
    assert_tidied(CLEAN_ROLE_NAME, 1, "", "?我很难过|!c", "?求助者： 我很难过", "!c");
    assert_tidied(CLEAN_ROLE_NAME, 1, "", "?a|!b\nc", "?a", "!b\n医生：c");
    assert_tidied(CLEAN_ROLE_NAME, 2, "", "?a|!b|?c|!d", "?用户：a", "!心理咨询师：b", "?c", "!d");
    assert_tidied(CLEAN_ROLE_NAME, 1, "role_name=keep", "?求助者：a|!c", "?求助者：a", "!c");
    assert_tidied(CLEAN_ROLE_OTHER, 1, "", "dropped", "?支持者：我理解", "!c");
    /* A name amid a line divides it, whoever's it is. */
    assert_tidied(CLEAN_ROLE_OTHER, 1, "", "dropped", "?怎么办？求助者：我难过", "!c");
    assert_tidied(CLEAN_ROLE_OTHER, 1, "role_other=context", "?a|!b。求助者：c<context>|?d|!e",
                  "?a", "!b。求助者：c", "?d", "!e");
    /* What is said, and titles in ordinary talk. */
    assert_tidied(CLEAN_ROLE_OTHER, 0, "", "?我的医生：他说。医生：多休息|!对咨询师：说",
                  "?我的医生：他说。医生：多休息", "!对咨询师：说");
    clean_clear(&t.d);
}

static void test_content(void **state)
{
    (void)state;
    assert_tidied(CLEAN_PHONE, 1, "", "?[电话]|!c", "?13812345678", "!c");
    assert_tidied(CLEAN_PHONE, 1, "phone=keep", "?13812345678|!c", "?13812345678", "!c");
    assert_tidied(CLEAN_PHONE, 1, "phone=drop", "dropped", "?13812345678", "!c");
    assert_tidied(CLEAN_PHONE, 0, "phone=off", "?13812345678 [邮箱]|!c", "?13812345678 ab@cd.com",
                  "!c");
    assert_tidied(CLEAN_IDENTITY_AI, 1, "", "?a|!作为一个AI，我不会<context>|?b|!c", "?a",
                  "!作为一个AI，我不会", "?b", "!c");
    assert_tidied(CLEAN_IDENTITY_AI, 0, "", "?作为一个AI|!c", "?作为一个AI", "!c");
    assert_tidied(CLEAN_IDENTITY_AI, 1, "", "dropped", "?a",
                  "!我是人工智能"); /* no reply is left */
    assert_tidied(CLEAN_IDENTITY_NAMED, 1, "identity_named=drop", "dropped", "?a",
                  "!你好，我是国家二级心理咨询师。");
    assert_tidied(CLEAN_IDENTITY_NAMED, 0, "", "?a|!我是高二开始求助心理咨询师的", "?a",
                  "!我是高二开始求助心理咨询师的");
    assert_tidied(CLEAN_IDENTITY_NAMED, 0, "", "?a|!可以说：“我是心理咨询师，", "?a",
                  "!可以说：“我是心理咨询师，");
    assert_tidied(CLEAN_CRISIS, 2, "", "?我想自杀，割腕<crisis>|!不要轻生<crisis>",
                  "?我想自杀，割腕", "!不要轻生");
    assert_tidied(CLEAN_CRISIS, 1, "crisis=keep", "?我想自杀|!c", "?我想自杀", "!c");
    assert_tidied(CLEAN_CRISIS, 1, "crisis=drop", "dropped", "?我想自杀", "!c");
    assert_tidied(CLEAN_CRISIS, 0, "", "?减轻生活压力，想死你了|!跳楼价", "?减轻生活压力，想死你了",
                  "!跳楼价");
    clean_clear(&t.d);
}

/* What a counsellor says about itself; each in its own words somewhere in the corpora. */
static void test_identities(void **state)
{
    (void)state;
    static const struct {
        enum clean_rule_id rule;
        int64_t found;
        const char *reply;
    } cases[] = {
        { CLEAN_IDENTITY_AI, 1, "!您好，我是EmoLLM，很高兴认识您！" },
        { CLEAN_IDENTITY_AI, 1, "!是的，我是一个虚拟助手。" },
        { CLEAN_IDENTITY_AI, 1, "!作为一个虚拟AI助手，我无法行动" },
        { CLEAN_IDENTITY_AI, 1, "!虽然我是个 AI，但是我可以听" },
        { CLEAN_IDENTITY_AI, 1, "!我只是一个计算机程序。" },
        { CLEAN_IDENTITY_AI, 1, "!您好，我是由晴天团队打造的心理健康助手" },
        { CLEAN_IDENTITY_AI, 1, "!我由某公司研发，可以陪你聊天" },
        { CLEAN_IDENTITY_AI, 0, "!我是人工智能专业的，作为程序员，也作为AI工程师" },
        { CLEAN_IDENTITY_AI, 0, "!感觉自己像个机器人。如果我是机器人，就不会难过" },
        { CLEAN_IDENTITY_AI, 0, "!可以说：“我是机器人，我不累”。" },
        { CLEAN_IDENTITY_AI, 0, "!我由衷地为你高兴，作为聊天的开端" },
        { CLEAN_IDENTITY_AI, 0, "!我是由奶奶带大的，我由此想到训练营" },
        { CLEAN_IDENTITY_NAMED, 1, "!你好，我是心理咨询师李华，很高兴能帮到你" },
        { CLEAN_IDENTITY_NAMED, 1, "!你好，我是咨询师Lily。" },
        { CLEAN_IDENTITY_NAMED, 1, "!我是刘老师。" },
        { CLEAN_IDENTITY_NAMED, 1, "!我是会明心理孙老师，有需要可联系我" },
        { CLEAN_IDENTITY_NAMED, 1, "!我是明老师的助理，" },
        { CLEAN_IDENTITY_NAMED, 1, "!我是【性教育咨询师】，" },
        { CLEAN_IDENTITY_NAMED, 0, "!我是个老师，我是高中老师，我是一个刚入职场的老师" },
        { CLEAN_IDENTITY_NAMED, 0, "!我是咨询师推荐来的，我是咨询师的来访" },
        { CLEAN_IDENTITY_NAMED, 0, "!我是你的咨询师吗，如果我是你的咨询师，" },
    };
    for (int64_t i = 0; i < COUNT_OF(cases); i++) {
        tidy(&t, "", TURNS("?a", "!b", "?c", cases[i].reply));
        if (t.found.count[cases[i].rule] != cases[i].found)
            fail_msg("%s: %lld", cases[i].reply, (long long)t.found.count[cases[i].rule]);
    }
    clean_clear(&t.d);
}

static void test_crisis(void **state)
{
    (void)state;
    static const struct {
        int64_t found;
        const char *turn;
    } cases[] = {
        { 1, "?我喜歡自殘，想自殺" },
        { 1, "?我割手腕了，明天还要上学" },
        { 1, "?拿小刀割自己" },
        { 1, "?遗书已经写好" },
        { 1, "?想从楼上跳下去" },
        { 1, "?好想离开这个世界" },
        { 1, "?我觉得活着没有任何意义" },
        { 1, "?感觉活着没什么意思" },
        { 1, "?还不如死了算了" },
        { 1, "?不想活在这个世界上" },
        { 1, "?真的不想活了" },
        { 0, "?我不想活在这种压力之下" },
        { 0, "?不想活成那样，不想活得累" },
        { 0, "?减轻生活压力，跳楼价，烧炭工" },
        { 0, "?想死你了，离开这个城市" },
    };
    for (int64_t i = 0; i < COUNT_OF(cases); i++) {
        tidy(&t, "", TURNS(cases[i].turn, "!b"));
        if (t.found.count[CLEAN_CRISIS] != cases[i].found)
            fail_msg("%s: %lld", cases[i].turn, (long long)t.found.count[CLEAN_CRISIS]);
    }
    clean_clear(&t.d);
}

static void test_examples(void **state)
{
    (void)state;
    tidy(&t, "",
         TURNS("?a 13812345678", "!c", "?d\r\ne", "!f", "?自杀", "!f", "?自残", "!f", "?自伤", "!f",
               "?跳楼", "!f"));
    assert_int_equal(t.found.example_count[CLEAN_PHONE], 1);
    assert_string_equal(t.found.example[CLEAN_PHONE][0].before, "a 13812345678");
    assert_string_equal(t.found.example[CLEAN_PHONE][0].after, "a [电话]");
    assert_string_equal(t.found.example[CLEAN_LINE_END][0].before, "d  e");
    assert_int_equal(t.found.count[CLEAN_CRISIS], 4);
    assert_int_equal(t.found.example_count[CLEAN_CRISIS], CLEAN_EXAMPLES_MAX);
    tidy(&t, "", TURNS("?一", "#说明", "!", "?二\n三", "!四"));
    assert_string_equal(t.text, "?一\n二\n三|!四");
    assert_string_equal(t.found.example[CLEAN_SYSTEM_TURN][0].before, "说明");
    assert_string_equal(t.found.example[CLEAN_SYSTEM_TURN][0].after, "");
    assert_string_equal(t.found.example[CLEAN_EMPTY_TURN][0].before, "一 | counsellor: | 二 三");
    assert_string_equal(t.found.example[CLEAN_EMPTY_TURN][0].after, "一 | 二 三");
    assert_string_equal(t.found.example[CLEAN_MERGE][0].before, "一 | 二 三");
    assert_string_equal(t.found.example[CLEAN_MERGE][0].after, "一 二 三");
    tidy(&t, "", TURNS("?", "!四", "?五", "!"));
    assert_string_equal(t.found.example[CLEAN_EMPTY_TURN][0].before, " | client: | 四");
    assert_string_equal(t.found.example[CLEAN_EMPTY_TURN][1].before, "五 | counsellor: | ");
    tidy(&t, "",
         TURNS("?a 13812345678", "!c", "?自杀", "!f", "?自残", "!f", "?自伤", "!f", "?跳楼", "!f"));
    struct clean_found sum = { .count = { 0 } };
    clean_found_add(&sum, &t.found);
    clean_found_add(&sum, &t.found);
    assert_int_equal(sum.count[CLEAN_CRISIS], 8);
    assert_int_equal(sum.example_count[CLEAN_CRISIS], CLEAN_EXAMPLES_MAX);
    assert_int_equal(sum.example_count[CLEAN_PHONE], 2);
    clean_clear(&t.d);
}

static void open_rules(struct clean_rules **r, const char *actions, int64_t long_turn)
{
    const struct clean_spec spec = { .actions = actions, .long_turn = long_turn };
    assert_ok(clean_rules_open(r, &spec));
}

static void test_switches(void **state)
{
    (void)state;
    struct clean_rules *r;
    const struct {
        const char *actions, *message;
    } bad[] = {
        { "crisis", "rule=action" },
        { "crises=drop", "no rule crises" },
        { "crisis=mask", "this rule has: off keep tag drop" },
        { "crisis=explode", "this rule has" },
        { "merge=off", "this rule has: fix" },
        { "crisis=drop,crisis=keep", "twice" },
    };
    for (int64_t i = 0; i < COUNT_OF(bad); i++) {
        const struct clean_spec spec = { .actions = bad[i].actions };
        assert_err(clean_rules_open(&r, &spec), USAGE, bad[i].message);
        assert_null(r);
    }
    char hex[5][SHA256_HEX_SIZE];
    const struct {
        const char *actions;
        int64_t long_turn;
    } sets[] = {
        { "", 0 }, { "crisis=tag", 2000 }, { "crisis=drop", 0 }, { "", 100 }, { "url=off", 0 }
    };
    for (int64_t i = 0; i < COUNT_OF(sets); i++) {
        open_rules(&r, sets[i].actions, sets[i].long_turn);
        clean_rules_sha256(hex[i], r);
        clean_rules_close(r);
    }
    assert_string_equal(hex[0], hex[1]); /* the standard, said or not */
    for (int a = 1; a < 5; a++)
        for (int b = a + 1; b < 5; b++) assert_string_not_equal(hex[a], hex[b]);
    /* Every rule has a name of its own, and its standard action is allowed. */
    for (int64_t i = 0; i < CLEAN_RULE_COUNT; i++) {
        assert_true(clean_rule_at(i)->allowed >> clean_rule_at(i)->standard & 1);
        for (int64_t k = 0; k < i; k++)
            assert_string_not_equal(clean_rule_at(i)->name, clean_rule_at(k)->name);
    }
}

static void test_tidy(void **state)
{
    (void)state;
    struct clean_dialogue d = { 0 };
    const struct turn_text turns[] = { { ROLE_SYSTEM, "x", 1 },
                                       { ROLE_CLIENT, " 13812345678\n\na", 15 },
                                       { ROLE_CLIENT, "自杀", 6 },
                                       { ROLE_COUNSELLOR, " ", 1 } };
    const struct dialogue_text from = { .turns = turns, .turn_count = COUNT_OF(turns) };
    assert_ok(clean_load(&d, &from));
    clean_tidy(&d);
    assert_int_equal(d.turn_count, 1);
    assert_int_equal(d.turns[0].size, 11 + 1 + 1 + 1 + 6);
    assert_memory_equal(d.turns[0].text, "13812345678\na\n自杀", 20);
    clean_clear(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_form),
        cmocka_unit_test(test_long_turn),       cmocka_unit_test(test_no_turn),
        cmocka_unit_test(test_characters), cmocka_unit_test(test_speakers),
        cmocka_unit_test(test_content),    cmocka_unit_test(test_identities),
        cmocka_unit_test(test_crisis),     cmocka_unit_test(test_examples),
        cmocka_unit_test(test_switches),   cmocka_unit_test(test_tidy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
