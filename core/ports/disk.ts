import { type ByteLength, type ByteOffset } from '../units.ts'

/**
 * The file system of one store, as far as replicas need it. Names are relative to the store's directory, with
 * `/` between their parts. Errors of the operating system come through as they are (`code` ENOSPC, EIO, ENOENT...).
 *
 * Durability is that of POSIX: a write may be lost or torn by a power cut until `sync` of its file has returned; a
 * new, renamed or removed name until `syncDirectory` of its directory has.
 */
export interface Disk {
  /** Opens a file for reading and writing. @throws ENOENT when it is missing and `create` is false; EEXIST when
   * `create` is 'exclusive' and it is there */
  open(name: string, create: boolean | 'exclusive'): Promise<DiskFile>
  /** Names in a directory, sorted; empty when the directory is missing. */
  list(directory: string): Promise<string[]>
  /** Makes a directory and its parents; does nothing when it is there. */
  makeDirectory(directory: string): Promise<void>
  /** Puts a file under another name, replacing what was there. */
  rename(from: string, to: string): Promise<void>
  /** Removes a file or an empty directory; does nothing when it is missing. */
  remove(name: string): Promise<void>
  /** Makes the names in a directory durable. */
  syncDirectory(directory: string): Promise<void>
  /** Space of the file system in bytes. `free` is what an unprivileged writer could still use. */
  space(): Promise<{ readonly total: ByteLength; readonly free: ByteLength }>
}

/** One open file of a store. Calls may overlap; two calls on overlapping bytes at once have no defined order. */
export interface DiskFile {
  /** Fills the buffer from a position; what lies beyond the end of the file reads as zeros. */
  read(into: Uint8Array, position: ByteOffset): Promise<void>
  /**
   * Fills the buffer now if the system has all of it in memory and nothing else is to be waited for.
   * @returns false when `read` is to be asked. Then the buffer may hold anything
   */
  readAtOnce?(into: Uint8Array, position: ByteOffset): boolean
  /** Writes the whole buffer at a position, growing the file when needed. */
  write(data: Uint8Array, position: ByteOffset): Promise<void>
  /** Makes all finished writes durable, as fdatasync does. After it has failed once, what it covered may be lost. */
  sync(): Promise<void>
  /** Frees the space of a range, which then reads as zeros; the file's size stays. Need not be aligned. */
  punch(position: ByteOffset, length: ByteLength): Promise<void>
  /** Takes space for a range, so that later writes there cannot fail with ENOSPC. Content reads as zeros. */
  reserve(position: ByteOffset, length: ByteLength): Promise<void>
  /** Sets the file's size in bytes. */
  resize(size: ByteLength): Promise<void>
  /** The file's size, and the space that it takes on the disk, both in bytes. */
  stat(): Promise<{ readonly size: ByteLength; readonly allocated: ByteLength }>
  /** Takes an exclusive lock that ends with the process. @returns false when another process holds it */
  tryLock(): boolean
  close(): Promise<void>
}
