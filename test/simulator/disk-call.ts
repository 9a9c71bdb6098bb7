/** Calls of a simulated disk. */

/** What a call on the disk does, for delays, faults and logs. */
export type DiskCall =
  | 'open'
  | 'list'
  | 'makeDirectory'
  | 'rename'
  | 'remove'
  | 'syncDirectory'
  | 'space'
  | 'read'
  | 'write'
  | 'sync'
  | 'punch'
  | 'reserve'
  | 'resize'
  | 'stat'
  | 'close'

/** The bytes of a file that a call is about, the end not included. */
export interface ByteRange {
  readonly from: number
  readonly to: number
}

export interface CallDetails {
  /** What a call may leave that fails, or is under way when the process dies, if that is not all or nothing. */
  readonly interrupted?: () => void
  readonly range?: ByteRange
}

/** An error as Node's file system gives it. */
export function systemError(code: string, call: string, name: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: simulated, ${call} '${name}'`), {
    code,
    syscall: call,
    path: name,
  })
}
