/*
 * soulchat - prepares counselling dialogues, trains ChatGLM-6B on them, exports and chats.
 * This file is the table of commands and nothing else; each command lives in the layer whose
 * work it is.
 */
#include "base/cli.h"

int main(void) { return 0; }
