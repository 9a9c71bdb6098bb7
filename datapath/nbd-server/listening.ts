import { chmod, lstat, mkdtemp, rename, rm } from 'node:fs/promises'
import { isIP, type Server } from 'node:net'
import { dirname, join } from 'node:path'
import { XosanError } from '../../core/errors.ts'

/** Longest path of a unix socket on Linux, in bytes (`sun_path` without its final NUL). */
const SOCKET_PATH_BYTES_MAX = 107

/**
 * Lets a server listen on a unix socket that only its owner can open.
 *
 * The socket is made inside a new directory of mode 0700, gets its mode there, and is then renamed into place: at no
 * moment can another user connect, a leftover socket of a dead process is replaced atomically, and the umask, which
 * belongs to the whole process, stays alone.
 *
 * @returns what removes the socket again, if it is still the same one
 * @throws XosanError INVALID_ARGUMENT when the path is too long, or names something that is no socket
 */
export async function listenOnUnixSocket(server: Server, path: string): Promise<() => Promise<void>> {
  const present = await lstat(path).catch(absent)
  if (present !== null && !present.isSocket()) throw invalid(path, 'there is something else than a socket')
  const directory = await mkdtemp(join(dirname(path), '.nbd-'))
  try {
    const nursery = join(directory, 's')
    for (const name of [path, nursery]) {
      if (Buffer.byteLength(name) > SOCKET_PATH_BYTES_MAX) {
        throw invalid(name, `a socket's path has at most ${SOCKET_PATH_BYTES_MAX} bytes`)
      }
    }
    await listen(server, { path: nursery })
    await chmod(nursery, 0o600)
    const { ino } = await lstat(nursery)
    await rename(nursery, path)
    return async () => {
      const now = await lstat(path).catch(absent)
      if (now?.ino === ino) await rm(path, { force: true })
    }
  } catch (error) {
    server.close()
    throw error
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

/**
 * Lets a server listen on a TCP port of this machine only.
 * @param port 0 for any free one
 * @throws XosanError UNSUPPORTED for an address that others can reach: without TLS anybody could write every volume;
 * INVALID_ARGUMENT for what is no address
 */
export async function listenOnLoopback(server: Server, host: string, port: number): Promise<void> {
  const loopback = familyOf(host) === 4 ? host.startsWith('127.') : host === '::1'
  if (!loopback) {
    throw new XosanError('UNSUPPORTED', {
      what: `NBD on ${host}`,
      reason: 'without TLS only loopback addresses (127.0.0.0/8, ::1) are served',
    })
  }
  await listen(server, { host, port })
}

/**
 * Lets a server listen on a TCP port of any address: for one that lets in only whom TLS has authenticated.
 * @param port 0 for any free one
 * @throws XosanError INVALID_ARGUMENT for what is no address
 */
export async function listenOnAddress(server: Server, host: string, port: number): Promise<void> {
  familyOf(host)
  await listen(server, { host, port })
}

function familyOf(host: string): number {
  const family = isIP(host)
  if (family !== 0) return family
  throw new XosanError('INVALID_ARGUMENT', { what: `the address ${host}`, reason: 'a number is needed' })
}

function listen(server: Server, where: { path: string } | { host: string; port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(where, () => {
      server.off('error', reject)
      resolve()
    })
  })
}

const invalid = (path: string, reason: string): XosanError =>
  new XosanError('INVALID_ARGUMENT', { what: `the socket path ${path}`, reason })

function absent(error: unknown): null {
  if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null
  throw error
}
