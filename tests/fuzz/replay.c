/* Runs a corpus through one fuzz target without libFuzzer: each file whole, cut at every byte (up
 * to 4096) and with each byte altered (up to 1024), so that a plain build checks the same claims.
 */
#include <dirent.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void run_exact(const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1); /* exact size, so that ASan sees one byte too far */

    if (!copy)
        abort();
    if (len)
        memcpy(copy, data, len);
    LLVMFuzzerTestOneInput(copy, len);
    free(copy);
}

static int run_file(const char *path)
{
    static uint8_t data[1 << 20];
    FILE *f = fopen(path, "rb");
    size_t len;

    if (!f)
        return -1;
    len = fread(data, 1, sizeof(data), f);
    fclose(f);
    run_exact(data, len);
    for (size_t cut = 0; cut < len && cut < 4096; cut++)
        run_exact(data, cut);
    for (size_t i = 0; i < len && i < 1024; i++) {
        uint8_t was = data[i];
        data[i] = (uint8_t)(was ^ 0xff);
        run_exact(data, len);
        data[i] = 0;
        run_exact(data, len);
        data[i] = was;
    }
    return 0;
}

int main(int argc, char **argv)
{
    size_t files = 0;

    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        struct dirent *entry;

        if (!dir) {
            perror(argv[i]);
            return 1;
        }
        while ((entry = readdir(dir))) {
            char path[PATH_MAX];
            if (entry->d_name[0] == '.')
                continue;
            snprintf(path, sizeof(path), "%s/%s", argv[i], entry->d_name);
            if (run_file(path) < 0) {
                perror(path);
                return 1;
            }
            files++;
        }
        closedir(dir);
    }
    printf("%zu corpus files replayed\n", files);
    return files == 0; /* an empty corpus proves nothing */
}
