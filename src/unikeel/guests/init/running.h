/* The program: started, watched, and its end. */
#ifndef RUNNING_H
#define RUNNING_H

#include "settings.h"

/* Run the program to its end; its exit status (128 and a signal's number, if one ended it), or -1 if it ended because the guest was to. */
int run(const struct settings *settings);

/* End all that runs. */
void settle_processes(void);

#endif
