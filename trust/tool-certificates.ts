import { mkdir, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { reasonOf, XosanError } from '../core/errors.ts'
import { type HostCredentials } from './trust-directory.ts'

/**
 * Writes a host's key and certificates as NBD tools built on GnuTLS look for them (libnbd, nbdkit, QEMU): a new
 * directory of mode 0700 with `ca-cert.pem`, `client-cert.pem` and `client-key.pem`, each of mode 0600.
 *
 * @throws XosanError INVALID_ARGUMENT when the directory exists or cannot be made; nothing is left then
 */
export async function exportToolCertificates(directory: string, credentials: HostCredentials): Promise<void> {
  const { keyPem, certificatePem, authoritiesPem } = credentials
  try {
    await mkdir(directory, { mode: 0o700 })
  } catch (error) {
    throw unusable(directory, error)
  }
  try {
    await writeNew(join(directory, 'ca-cert.pem'), authoritiesPem)
    await writeNew(join(directory, 'client-cert.pem'), certificatePem)
    await writeNew(join(directory, 'client-key.pem'), keyPem)
  } catch (error) {
    await rm(directory, { recursive: true, force: true })
    throw unusable(directory, error)
  }
}

async function writeNew(path: string, text: string): Promise<void> {
  const handle = await open(path, 'wx', 0o600)
  try {
    await handle.writeFile(text)
  } finally {
    await handle.close()
  }
}

const unusable = (directory: string, cause: unknown): XosanError =>
  new XosanError(
    'INVALID_ARGUMENT',
    { what: `the directory ${directory}`, reason: reasonOf(cause) },
    { cause }
  )
