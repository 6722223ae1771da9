/* The number of words in a text. */
int words(const char *text);
