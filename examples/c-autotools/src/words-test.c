#include "words.h"

int main(void) { return words(" a  b ") != 2; }
