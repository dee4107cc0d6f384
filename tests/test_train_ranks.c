/* Which rank this is, by the variables of whoever started it; and which ranks share a machine. */
#include "testing.h"

#include "train/ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const variables[] = {
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_RESTART_COUNT",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "OMPI_MCA_ess_base_jobid",
    "PMIX_RANK",
    "PMIX_NAMESPACE",
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "SLURM_LOCALID",
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
    "SLURM_STEP_NODELIST",
    "SLURM_JOB_NODELIST",
    "SOULCHAT_LAUNCH",
    "SOULCHAT_JOB",
    "SOULCHAT_PORT",
};

/* "A=1 B=2" and nothing else of what counts. */
static void set_variables(const char *assignments)
{
    char text[1024], *rest = text;
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++) unsetenv(variables[i]);
    snprintf(text, sizeof text, "%s", assignments);
    for (char *word; (word = strtok_r(rest, " ", &rest)) != NULL;) {
        char *equals = strchr(word, '=');
        *equals = '\0';
        setenv(word, equals + 1, 1);
    }
}

#define TORCH "RANK=3 WORLD_SIZE=8 LOCAL_RANK=1 MASTER_ADDR=n0 MASTER_PORT=29500"
#define OMPI  "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=1"
#define SLURM "SLURM_PROCID=5 SLURM_NTASKS=16 SLURM_LOCALID=5 SLURM_STEP_ID=0 SLURM_JOB_ID=77"

static const struct found {
    const char *variables, *launcher;
    int64_t rank, size, local_rank;
    const char *host;
    int port; /* 0: any */
    const char *job;
} found_cases[] = {
    { "", NULL, 0, 1, 0, "", 0, "" },
    { TORCH, "torchrun", 3, 8, 1, "n0", 29500, "" },
    { TORCH " TORCHELASTIC_RUN_ID=x TORCHELASTIC_RESTART_COUNT=2", "torchrun", 3, 8, 1, "n0", 29501,
      "torchrun x.2" },
    { TORCH " TORCHELASTIC_RUN_ID=x " SLURM, "torchrun", 3, 8, 1, "n0", 29501, "torchrun x." },
    { TORCH " SOULCHAT_LAUNCH=7 SOULCHAT_JOB=abc SOULCHAT_PORT=1", "soulchat", 3, 8, 1, "n0", 29500,
      "abc" },
    { "RANK=0 WORLD_SIZE=1", "torchrun", 0, 1, 0, "", 0, "" },
    { OMPI " OMPI_COMM_WORLD_LOCAL_SIZE=2 PMIX_NAMESPACE=5", "mpirun", 1, 2, 1, "127.0.0.1", 0,
      "mpirun 5." },
    { OMPI " MASTER_ADDR=n7 SOULCHAT_PORT=4000", "mpirun", 1, 2, 1, "n7", 4000, "" },
    { "PMIX_RANK=1 OMPI_COMM_WORLD_SIZE=2 MASTER_ADDR=n7", "mpirun", 1, 2, 1, "n7", 29400, "" },
    { OMPI " MASTER_ADDR=n7 " SLURM, "mpirun", 1, 2, 1, "n7", 29400, "" },
    { SLURM " SLURM_STEP_NODELIST=gpu[07-09],x PMIX_RANK=5", "srun", 5, 16, 5, "gpu07", 0,
      "srun 77.0" },
    { SLURM " SLURM_JOB_NODELIST=a,b MASTER_PORT=999", "srun", 5, 16, 5, "a", 999, "srun 77.0" },
    { "SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_JOB_ID=7", NULL, 0, 1, 0, "", 0, "" }, /* the script */
};

static void test_find(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof found_cases / sizeof found_cases[0]; i++) {
        const struct found *c = &found_cases[i];
        struct ranks_place place;
        set_variables(c->variables);
        assert_ok(ranks_find(&place));
        if (c->launcher == NULL)
            assert_null(place.launcher);
        else
            assert_string_equal(place.launcher, c->launcher);
        assert_int_equal(place.rank, c->rank);
        assert_int_equal(place.size, c->size);
        assert_int_equal(place.local_rank, c->local_rank);
        assert_string_equal(place.host, c->host);
        assert_string_equal(place.job, c->job);
        if (c->port != 0)
            assert_int_equal(place.port, c->port);
        else if (c->size > 1)
            assert_in_range(place.port, 20000, 29999);
    }
    set_variables("");
}

static const struct refused {
    const char *variables, *message;
} refused_cases[] = {
    { "RANK=8 WORLD_SIZE=8", "RANK=8, but there are WORLD_SIZE=8 ranks" },
    { "RANK=x WORLD_SIZE=8", "RANK=x; expected a number" },
    { "RANK=-1 WORLD_SIZE=8", "RANK=-1; expected a number" },
    { "RANK=1 WORLD_SIZE=0", "WORLD_SIZE=0; expected a number from 1" },
    { "RANK=1 WORLD_SIZE=99999", "WORLD_SIZE=99999; expected a number" },
    { "RANK=1", "RANK is set and WORLD_SIZE is not" },
    { "WORLD_SIZE=4", "WORLD_SIZE is set and RANK is not" },
    { "RANK=1 WORLD_SIZE=4 MASTER_PORT=1", "MASTER_ADDR does not say" },
    { TORCH " LOCAL_RANK=q", "LOCAL_RANK=q" },
    { TORCH " MASTER_PORT=70000", "MASTER_PORT=70000" },
    { TORCH " " OMPI, "RANK=3 of WORLD_SIZE=8, but OMPI_COMM_WORLD_RANK=1" },
    { TORCH " " SLURM, "RANK=3 of WORLD_SIZE=8, but SLURM_PROCID=5 of SLURM_NTASKS=16" },
    { OMPI, "MASTER_ADDR does not say on which host rank 0 is (mpirun -x" },
    { SLURM, "MASTER_ADDR does not say" },
    { SLURM " SLURM_JOB_NODELIST=[", "is no list of hosts" },
    { "RANK=0 WORLD_SIZE=2 MASTER_ADDR=h SOULCHAT_LAUNCH=x", "SOULCHAT_LAUNCH=x" },
};

static void test_find_refuses(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused_cases / sizeof refused_cases[0]; i++) {
        struct ranks_place place;
        set_variables(refused_cases[i].variables);
        assert_err(ranks_find(&place), USAGE, refused_cases[i].message);
    }
    set_variables("");
}

/* Each rank of a machine has a GPU of its own, by its number or because it sees no other. */
static void test_device(void **state)
{
    static const struct {
        const char *launcher, *visible, *device, *expected;
        int64_t size;
    } cases[] = {
        { "srun", NULL, "cuda", "cuda:3", 8 },      { "srun", "0", "cuda", "cuda:0", 8 },
        { "srun", "0,1,2,3", "cuda", "cuda:3", 8 }, { "mpirun", "GPU-5f", "cuda", "cuda:0", 8 },
        { "soulchat", "0", "cuda", "cuda:3", 8 },   { "srun", "0", "cuda:1", "cuda:1", 8 },
        { "srun", "0", "cpu", "cpu", 8 },           { NULL, "0", "cuda", "cuda", 1 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct ranks_place place = { .launcher = cases[i].launcher,
                                           .size = cases[i].size,
                                           .local_rank = 3 };
        char own[RANKS_DEVICE_MAX];
        if (cases[i].visible != NULL)
            setenv("CUDA_VISIBLE_DEVICES", cases[i].visible, 1);
        else
            unsetenv("CUDA_VISIBLE_DEVICES");
        assert_string_equal(ranks_device(own, cases[i].device, &place), cases[i].expected);
    }
    unsetenv("CUDA_VISIBLE_DEVICES");
}

static void test_first_host(void **state)
{
    static const char *const cases[][2] = {
        { "n1", "n1" },
        { "n1,n2", "n1" },
        { "gpu[007-009,12]-ib,x1", "gpu007-ib" },
        { "r[1-2]n[3,4]", "r1n3" },
        { "a.b.example,c", "a.b.example" },
    };
    static const char *const bad[] = { "", ",", "n[", "n[]", "[,]", "n[3" };
    char host[16];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_ok(ranks_first_host(host, sizeof host, cases[i][0]));
        assert_string_equal(host, cases[i][1]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_err(ranks_first_host(host, sizeof host, bad[i]), USAGE, "");
    assert_ok(ranks_first_host(host, sizeof host, "123456789012345"));
    assert_err(ranks_first_host(host, sizeof host, "1234567890123456"), USAGE, "too long");
}

static int64_t machines_of(const char *hosts, const int64_t *local_ranks)
{
    struct rendezvous_seat seats[8];
    const int64_t size = (int64_t)strlen(hosts);
    for (int64_t i = 0; i < size; i++) {
        snprintf(seats[i].host, sizeof seats[i].host, "gpu%c", hosts[i]);
        seats[i].local_rank = local_ranks[i];
    }
    return ranks_machine_size(seats, size);
}

static void test_machines(void **state)
{
    (void)state;
    static const int64_t twos[] = { 0, 1, 0, 1, 0, 1, 0, 1 }, fours[] = { 0, 1, 2, 3, 0, 1, 2, 3 },
                         zeros[8] = { 0 }, rising[] = { 0, 1, 2, 3, 4, 5, 6, 7 };
    assert_int_equal(machines_of("aabbccdd", twos), 2);
    assert_int_equal(machines_of("aaaabbbb", fours), 4);
    assert_int_equal(machines_of("abc", zeros), 1);
    assert_int_equal(machines_of("aaaa", fours), 0);   /* one machine */
    assert_int_equal(machines_of("a", zeros), 0);      /* one rank */
    assert_int_equal(machines_of("aaabb", rising), 0); /* unequal */
    assert_int_equal(machines_of("aabbbc", twos), 0);
    assert_int_equal(machines_of("aabaab", twos), 0);
    assert_int_equal(machines_of("abab", (const int64_t[]){ 0, 0, 1, 1 }), 0); /* in turns */
    assert_int_equal(machines_of("aabb", rising), 0); /* nobody counted on each */
    assert_int_equal(machines_of("aabb", (const int64_t[]){ 0, 1, 1, 0 }), 0);
    assert_int_equal(machines_of("aaaaaaaa", fours), 0); /* two of one name */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find),     cmocka_unit_test(test_find_refuses),
        cmocka_unit_test(test_device),   cmocka_unit_test(test_first_host),
        cmocka_unit_test(test_machines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
