#include "words.h"

int words(const char *text) {
    int count = 0, inside = 0;
    for (; *text; text++) {
        int space = *text == ' ';
        count += !space && !inside;
        inside = !space;
    }
    return count;
}
