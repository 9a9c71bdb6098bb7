import { resolve } from 'node:path'
import { type Command } from 'commander'
import { type DaemonOptions, askDaemon, withDaemon } from './common.ts'

export function addTrustCommands(program: Command): void {
  const trust = program.command('trust').description('the certificates with which hosts know each other')
  withDaemon(trust.command('export'))
    .description('write certificates with which NBD tools can look at replicas')
    .argument('<directory>', 'a new directory, for root only')
    .action(async (given: string, options: DaemonOptions) => {
      await askDaemon(options, async (daemon, out) => {
        const directory = resolve(given)
        await daemon.call('trust.export', { directory })
        out.result({ directory })
        const name = 'check/SR/VOLUME'
        const image = (host: string): string =>
          `driver=nbd,host=${host},port=PORT,export=${name},tls-creds=tls`
        out.paragraph(
          `The certificates of this host are in ${directory}. Whoever can read them is this host to all others: ` +
            'remove the directory when you are done.',
          ''
        )
        out.line()
        out.line('Look at a replica, or compare two while the volume is closed:')
        out.line()
        out.line(`  nbdinfo 'nbds://HOST:PORT/${name}?tls-certificates=${directory}'`)
        out.line(`  qemu-img compare --object tls-creds-x509,id=tls,dir=${directory},endpoint=client \\`)
        out.line(`    --image-opts ${image('HOST1')} \\`)
        out.line(`    ${image('HOST2')}`)
        out.line()
        out.paragraph(
          'HOST is an address from `xosan host ls`, SR and VOLUME are from `xosan volume show`. PORT is 7730 for ' +
            'datapath process 0 of a host, 7731 for 1, and so on: the one that the volume belongs to, on every host the same.',
          ''
        )
      })
    })
}
