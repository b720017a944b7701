/**
 * Linux's VIRTIO drivers that Debian's kernel leaves out, built as modules of their own from that very kernel's source,
 * with its headers and the compiler that built it; and what it takes to use their devices in a guest.
 */
import { chmodSync, copyFileSync, cpSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ok, type Result } from '@airlock/core/result.ts';
import { built, type Cache, CHECKOUT, contentKey, type Kernel, openDriverSources, runProgram } from './cache.ts';

/** What would have Debian build them: `CONFIG_` and these. */
export const MISSING_OPTIONS = ['I2C_VIRTIO', 'GPIO_VIRTIO', 'VIRTIO_RTC', 'CAN_VIRTIO_CAN', 'SPI_VIRTIO'] as const;

const FOLDERS = ['drivers/i2c/busses', 'drivers/gpio', 'drivers/virtio', 'drivers/net/can', 'drivers/spi'];

/** A chip for the SPI bus, and a program that asks what busybox cannot. */
const OURS = join(CHECKOUT, 'packages/lab/drivers');
const CHIP = 'chip-on-spi.c';
const PROGRAM = 'ask-device';

const KBUILD = `obj-m := i2c-virtio.o gpio-virtio.o virtio_rtc.o virtio_can.o spi-virtio.o chip-on-spi.o
virtio_rtc-y := virtio_rtc_driver.o virtio_rtc_ptp.o virtio_rtc_class.o
ccflags-y := -DCONFIG_VIRTIO_RTC_PTP=1 -DCONFIG_VIRTIO_RTC_CLASS=1
`;

/** A folder of modules (`.ko`) and programs. Codes: `lab-unsupported` without sources, `lab-cache`, `lab-build`. */
export async function buildMissingDrivers(
  cache: Cache,
  kernel: Kernel,
  say: (line: string) => void = () => {},
): Promise<Result<string>> {
  const opened = await openDriverSources(cache, kernel, say);
  if (!opened.ok) return opened;
  const tree = opened.value;
  const key = contentKey([
    ...['missing drivers 1', kernel.release, KBUILD],
    ...[{ file: join(OURS, CHIP) }, { file: join(OURS, `${PROGRAM}.c`) }],
  ]);
  return built(cache, `missing-drivers-${kernel.series}`, key, async (into) => {
    const work = `${into}.tree`;
    try {
      rmSync(work, { recursive: true, force: true });
      mkdirSync(work, { recursive: true });
      for (const folder of FOLDERS) cpSync(join(tree, 'source', folder), work, { recursive: true });
      copyFileSync(join(OURS, CHIP), join(work, CHIP));
      writeFileSync(join(work, 'Kbuild'), KBUILD);
      const headers = join(tree, 'usr/src', `linux-headers-${kernel.release}`);
      const common = headers.replace(/-amd64$/, '-common');
      const bin = join(tree, 'usr/bin');
      // Its own assembler and linker, not this machine's of the same names.
      const own = `-B${bin}/x86_64-linux-gnu-`;
      const env = { PATH: `${bin}:${process.env['PATH'] ?? ''}` };
      const kbuild = [`srctree=${common}`, `KBUILD_OUTPUT=${headers}`, `M=${work}`];
      const flags = [`KCFLAGS=${own}`, `KAFLAGS=${own}`, 'CONFIG_DEBUG_INFO_BTF_MODULES='];
      const made = await runProgram(['make', '-f', join(common, 'Makefile'), ...kbuild, ...flags, 'modules'], {
        ...{ cwd: work, env },
      });
      if (!made.ok) return made;
      mkdirSync(into, { recursive: true });
      for (const name of readdirSync(work).filter((one) => one.endsWith('.ko'))) {
        const strip = [join(bin, 'x86_64-linux-gnu-strip'), '--strip-debug', '-o', join(into, name), join(work, name)];
        const done = await runProgram(strip, { env });
        if (!done.ok) return done;
      }
      const program = await runProgram(
        [
          ...[
            join(bin, 'x86_64-linux-gnu-gcc-14'),
            '-O2',
            '-static',
            '-nostdlib',
            '-ffreestanding',
            '-fno-stack-protector',
          ],
          ...[own, '-fno-use-linker-plugin'],
          ...[`-I${common}/include/uapi`, `-I${common}/arch/x86/include/uapi`],
          ...[`-I${headers}/arch/x86/include/generated/uapi`, `-I${headers}/include/generated/uapi`],
          ...['-o', join(into, PROGRAM), join(OURS, `${PROGRAM}.c`)],
        ],
        { env },
      );
      return program.ok ? ok(undefined) : program;
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
  });
}

/** Puts them where depmod and a guest's shell find them. */
export function putMissingDrivers(made: string, kernel: Kernel, tree: string): void {
  const modules = join(tree, 'lib/modules', kernel.release, 'updates');
  for (const folder of [modules, join(tree, 'bin')]) mkdirSync(folder, { recursive: true });
  for (const name of readdirSync(made)) {
    const to = join(name.endsWith('.ko') ? modules : join(tree, 'bin'), name);
    copyFileSync(join(made, name), to);
    chmodSync(to, 0o755);
  }
}
