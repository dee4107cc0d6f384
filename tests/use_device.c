#include "use_device.h"

#include "kernels/dev.h"

#include <stddef.h>

err_t use_device(const char *name)
{
    err_t rc = ERR_OK;
    struct dev *dev;
    struct dev_event *event = NULL;
    void *data = NULL, *host = NULL;
    char bytes[64] = { 1 };
    TRY(dev_open(&dev, name, 1));
    TRY_DONE(dev_alloc(dev, &data, sizeof bytes, "data"));
    TRY_DONE(dev_host_alloc(dev, &host, sizeof bytes, "host"));
    TRY_DONE(dev_event_create(dev, &event));
    TRY_DONE(dev_upload(dev, data, bytes, sizeof bytes));
    TRY_DONE(dev_copy(dev, DEV_OUT, host, data, sizeof bytes));
    TRY_DONE(dev_event_record(dev, event, DEV_OUT));
    TRY_DONE(dev_event_wait(dev, event, DEV_COMPUTE));
    TRY_DONE(dev_event_sync(dev, event));
    TRY_DONE(dev_download(dev, bytes, data, sizeof bytes));
    TRY_DONE(dev_sync(dev));
done:
    dev_event_destroy(dev, event);
    dev_host_free(dev, host);
    dev_free(dev, data);
    dev_close(dev);
    return rc;
}
