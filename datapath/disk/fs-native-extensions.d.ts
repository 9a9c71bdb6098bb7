/** The calls that we use of a package that has no types of its own. */
declare module 'fs-native-extensions' {
  /** fallocate with FALLOC_FL_PUNCH_HOLE and FALLOC_FL_KEEP_SIZE, on the thread pool. */
  export function trim(fd: number, offset: number, length: number): Promise<void>
  /** An exclusive lock of the whole file that belongs to the open file (F_OFD_SETLK). False when it is taken. */
  export function tryLock(fd: number): boolean
}
