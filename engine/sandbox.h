// Giving up everything the engine does not need: files, identity, capabilities, system calls.
#ifndef AMBIENT_SANDBOX_H
#define AMBIENT_SANDBOX_H

// Both end the process with a line on stderr if anything cannot be given up.
void sandbox_enter(const char *run_dir); // before there are threads: chroot, nobody, no capability, no new privileges
void sandbox_seal(void);                 // all threads: only the system calls of the list

#endif
