/**
 * How many calls one store may have under way.
 *
 * All calls to file systems of a process share the threads of one pool (libuv's), and a call to a disk that hangs keeps
 * its thread. Without a limit the first store whose disk hangs would take every thread, and with them the disks of all
 * other stores, the process's own files, and whatever else of Node uses the pool. So each store has less than the whole
 * pool; what comes beyond that waits here, in the order of arrival, and takes no thread.
 */

/** What libuv makes when nobody says otherwise, and the most that it takes. */
const THREADS_DEFAULT = 4
const THREADS_MAX = 1024
/** From so many threads on, two stores whose disks hang leave a third of them to everybody else. */
const MANY_THREADS = 12

/** Calls to disks that have begun and not ended, of all stores of this process. */
let underWay = 0

/** @param setting the environment's UV_THREADPOOL_SIZE, which counts only if it was there when the process started */
export function lanesPerStore(setting = process.env['UV_THREADPOOL_SIZE']): number {
  const asked = setting === undefined ? THREADS_DEFAULT : Number.parseInt(setting, 10)
  const threads = Math.min(Math.max(Number.isNaN(asked) ? 1 : asked, 1), THREADS_MAX)
  return threads >= MANY_THREADS ? Math.floor(threads / 3) : Math.max(threads - 1, 1)
}

/** The calls of one store. */
export class DiskLanes {
  #free: number
  readonly #waiting: (() => void)[] = []

  /** @param count calls that may be under way at once */
  constructor(count = lanesPerStore()) {
    this.#free = count
  }

  /** Begins a call, now or when there is room; `leave` has to follow when it has ended. */
  enter(begin: () => void): void {
    if (this.#free === 0) {
      this.#waiting.push(begin)
      return
    }
    this.#free--
    underWay++
    begin()
  }

  leave(): void {
    const next = this.#waiting.shift()
    if (next !== undefined) {
      next()
      return
    }
    underWay--
    this.#free++
  }

  /** Makes a call in its turn. */
  async run<Result>(call: () => Promise<Result>): Promise<Result> {
    await new Promise<void>(resolve => this.enter(resolve))
    try {
      return await call()
    } finally {
      this.leave()
    }
  }
}

/**
 * Lets this process end while calls to disks hang. At its end it would wait for all threads of the pool, and a
 * successor, which waits for its lock, with it; so then it kills itself, which is safe at any instruction.
 */
export function endThoughDisksHang(): void {
  process.on('exit', () => {
    if (underWay > 0) process.kill(process.pid, 'SIGKILL')
  })
}
