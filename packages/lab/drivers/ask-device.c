/* Two questions that busybox cannot ask: `ask-device clock /dev/ptpN`, `ask-device spi /dev/spidevN.M`. No C library. */
#include <linux/fcntl.h>
#include <linux/spi/spidev.h>
#include <linux/time.h>
#include <asm/unistd_64.h>

static long call(long number, long a, long b, long c)
{
	long result;

	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return result;
}

static void say(unsigned long long number)
{
	char text[24];
	int at = sizeof(text);

	text[--at] = '\n';
	do
		text[--at] = '0' + number % 10;
	while ((number /= 10) != 0);
	call(__NR_write, 1, (long)(text + at), sizeof(text) - at);
}

/* Both directions at once: 0 when what came back is what was sent. */
static int talk(int fd)
{
	unsigned char out[256], in[256];
	struct spi_ioc_transfer transfer = { .tx_buf = (unsigned long)out, .rx_buf = (unsigned long)in, .len = sizeof(out) };

	for (int i = 0; i < (int)sizeof(out); i++) {
		out[i] = (unsigned char)(7 * i + 1);
		in[i] = 0;
	}
	long moved = call(__NR_ioctl, fd, SPI_IOC_MESSAGE(1), (long)&transfer);

	if (moved != sizeof(out))
		return 3;
	for (int i = 0; i < (int)sizeof(out); i++)
		if (in[i] != out[i])
			return 4;
	say((unsigned long long)moved);
	return 0;
}

static int read_clock(int fd)
{
	struct { long long seconds, nanoseconds; } now;

	/* The clock that a descriptor stands for. */
	if (call(__NR_clock_gettime, (~(long)fd << 3) | 3, (long)&now, 0) != 0)
		return 3;
	say((unsigned long long)now.seconds * 1000000000ull + (unsigned long long)now.nanoseconds);
	return 0;
}

__attribute__((used)) static int run(long *stack)
{
	if (stack[0] != 3)
		return 2;
	const char *what = (const char *)stack[2];
	long fd = call(__NR_open, stack[3], O_RDWR, 0);

	if (fd < 0)
		return 1;
	return what[0] == 's' ? talk((int)fd) : read_clock((int)fd);
}

__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tcall run\n\tmov %eax, %edi\n\tmov $60, %eax\n\tsyscall\n");
