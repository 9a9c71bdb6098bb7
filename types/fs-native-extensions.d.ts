/** The calls that we use of a package without types of its own; it throws errors of the operating system. */
declare module 'fs-native-extensions' {
  /**
   * Takes an exclusive lock of the open file description (F_OFD_SETLK, see fcntl(2)) on the whole file.
   *
   * @returns false when somebody else holds it
   */
  export function tryLock(fd: number): boolean
  /** Frees the space of a range, which then reads as zeros (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE). */
  export function trim(fd: number, offset: number, length: number): Promise<void>
}
