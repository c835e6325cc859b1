/* /init of the `initrd` sample: says what it was given, then ends the guest.
 *
 * Arguments: exit=N ends it with this exit status; wait waits for ever (an idle guest); without either it powers off.
 */
#include "guest.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

int main(void)
{
    static struct command_line line;

    mount_system("");
    read_command_line(&line);
    say("hello from an initrd", NULL);
    for (char **argument = line.arguments; *argument; argument++)
        say("argument: ", *argument, NULL);
    for (char **variable = environ; *variable; variable++)
        say("environment: ", *variable, NULL);

    for (char **argument = line.arguments; *argument; argument++)
        if (!strcmp(*argument, "wait"))
            for (;;)
                pause();
    const char *status = value_of(line.arguments, "exit=");
    if (status)
        exit_guest(atoi(status));
    power_off();
}
