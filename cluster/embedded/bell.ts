/**
 * Lets a process hear at once that another has committed. Whoever commits writes a byte into a file beside the database,
 * after the commit, and the kernel tells those who watch that file (inotify). Watching the database's own log would not
 * do: it is written before the commit can be seen.
 *
 * Nothing relies on it. A process may die between the commit and the bell, and the kernel may refuse to watch; so
 * everybody also looks from time to time, and more often when it cannot hear.
 */
import { type FSWatcher, closeSync, constants, openSync, watch, writeSync } from 'node:fs'

export class Bell {
  readonly #file: number
  readonly #watcher: FSWatcher | null

  /**
   * @param path the bell's file, made when missing
   * @param heard called soon after any process has rung, this one too; maybe once for several
   */
  constructor(path: string, heard: () => void) {
    this.#file = openSync(path, constants.O_WRONLY | constants.O_CREAT, 0o600)
    this.#watcher = watchFile(path, heard)
  }

  /** False when the kernel does not tell us: many processes on one machine can use up its watches. */
  get works(): boolean {
    return this.#watcher !== null
  }

  ring(): void {
    try {
      writeSync(this.#file, '.', 0)
    } catch {
      // A full disk, for instance. The commit is made, and the others will look.
    }
  }

  close(): void {
    this.#watcher?.close()
    closeSync(this.#file)
  }
}

function watchFile(path: string, heard: () => void): FSWatcher | null {
  try {
    // Not persistent: hearing alone is no reason for a process to live.
    const watcher = watch(path, { persistent: false }, heard)
    watcher.on('error', () => watcher.close())
    return watcher
  } catch {
    return null
  }
}
