#include <config.h>
#include <stdio.h>

#include "words.h"

int main(int argc, char **argv) {
    int count = 0;
    for (int i = 1; i < argc; i++)
        count += words(argv[i]);
    printf("hello from c, %d words (%s)\n", count, PACKAGE_STRING);
    return 0;
}
