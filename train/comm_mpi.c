/* Finds libsoulchat_mpi.so (train/mpi): a program that also runs where there is no MPI. */
#include "train/comm_impl.h"

#include "base/check.h"
#include "base/progress.h"
#include "kernels/backend_load.h"

#include <string.h>

typedef const struct comm_ops *mpi_entry(void);

/* What the library uses of the program. The linker keeps of a static one only what is named. */
typedef void any_function(void);
__attribute__((used)) static any_function *const used_by_mpi[] = {
    (any_function *)err_raise,    (any_function *)err_pass,
    (any_function *)check_failed, (any_function *)comm_check_aborted,
    (any_function *)time_now_s,   (any_function *)comm_exchange_name,
};

err_t comm_load_mpi(const struct comm_ops **out)
{
    void *symbol;
    mpi_entry *entry;
    char reason[ERR_TEXT_MAX];
    *out = NULL;
    if (!backend_library_open(&symbol, "mpi", "soulchat_mpi", reason))
        RAISE(UNSUPPORTED,
              "communicator mpi: %s; build with an MPI library (libopenmpi-dev) installed, or run "
              "on one machine with soulchat train --ranks N",
              reason[0] != '\0' ? reason : "no libsoulchat_mpi.so in ../lib beside the program");
    memcpy(&entry, &symbol, sizeof entry); /* C has no cast from data to function pointers */
    *out = entry();
    return ERR_OK;
}
