/* Runs that threads take by themselves: the queue between the one who lays them out and those who
 * compute. Not for Windows, whose event loops cannot wait on a file descriptor. */
#if !defined(_WIN32)
#if defined(__linux__)
#define _DEFAULT_SOURCE /* clock_gettime */
#endif
#include "kernels.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* One for each thread: who is woken is chosen here, not by the order of waiting. */
typedef struct bed {
    pthread_cond_t woken;
    int32_t asleep;
    struct bed *below;
} bed;

struct ck_queue {
    pthread_mutex_t lock;
    ck_work *first, **end; /* submitted, and no thread has it */
    ck_work *ready;
    bed *asleep; /* who fell asleep last is the first: its caches are warm, and its processor is idle */
    int32_t told, closed, threads, serving;
    bed beds[];
};

ck_queue *ck_queue_new(int32_t told, int32_t threads) {
    ck_queue *q = calloc(1, sizeof *q + (size_t)threads * sizeof *q->beds);
    if (!q) return NULL;
    pthread_mutex_init(&q->lock, NULL);
    for (int32_t i = 0; i < threads; i++) pthread_cond_init(&q->beds[i].woken, NULL);
    q->end = &q->first;
    q->told = told;
    q->threads = threads;
    return q;
}

void ck_queue_free(ck_queue *q) {
    for (int32_t i = 0; i < q->threads; i++) pthread_cond_destroy(&q->beds[i].woken);
    pthread_mutex_destroy(&q->lock);
    free(q);
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

/* A pipe that is full has told its reader enough. */
static void tell(int32_t told) {
    while (write(told, "", 1) < 0 && errno == EINTR) continue;
}

/* `work`, and then what lies ready. */
static void run_all(ck_queue *q, ck_work *work) {
    while (work) {
        int64_t began = now();
        ck_run(work->model, work->ids, work->offsets, work->texts, work->out, work->workspace, work->team,
               (int32_t)work->rank);
        int64_t took = now() - began;
        ck_work *taken = NULL;
        pthread_mutex_lock(&q->lock);
        if (work->goes_on) {
            taken = q->ready;
            q->ready = NULL;
        }
        pthread_mutex_unlock(&q->lock);
        /* Of a team the first one's return is news. */
        int is_news = !work->team || !__atomic_fetch_add(&work->team->returned, 1, __ATOMIC_ACQ_REL);
        /* From here on `work` is its owner's again. */
        __atomic_store_n(&work->nanoseconds, took > 0 ? took : 1, __ATOMIC_RELEASE);
        if (is_news) tell(q->told);
        work = taken;
    }
}

/* With the lock. */
static void sleep_in(ck_queue *q, bed *own) {
    own->below = q->asleep;
    q->asleep = own;
    for (own->asleep = 1; own->asleep;) pthread_cond_wait(&own->woken, &q->lock);
}

/* With the lock, so that nobody who wakes changes the list meanwhile. */
static void wake(ck_queue *q, int32_t threads) {
    for (; q->asleep && threads; threads--) {
        bed *one = q->asleep;
        q->asleep = one->below;
        one->asleep = 0;
        pthread_cond_signal(&one->woken);
    }
}

void ck_serve(ck_queue *q) {
    pthread_mutex_lock(&q->lock);
    bed *own = &q->beds[q->serving++];
    for (;;) {
        while (!q->first && !q->closed) sleep_in(q, own);
        ck_work *work = q->first;
        if (!work) break;
        if (!(q->first = work->after)) q->end = &q->first;
        pthread_mutex_unlock(&q->lock);
        run_all(q, work);
        pthread_mutex_lock(&q->lock);
    }
    pthread_mutex_unlock(&q->lock);
}

void ck_close(ck_queue *q) {
    pthread_mutex_lock(&q->lock);
    q->closed = 1;
    wake(q, q->threads);
    pthread_mutex_unlock(&q->lock);
}

void ck_submit(ck_queue *q, ck_work *work) {
    ck_work *last = work;
    int32_t works = 1;
    for (; last->after; works++) last = last->after;
    pthread_mutex_lock(&q->lock);
    *q->end = work;
    q->end = &last->after;
    wake(q, works);
    pthread_mutex_unlock(&q->lock);
}

ck_work *ck_offer(ck_queue *q, ck_work *work) {
    pthread_mutex_lock(&q->lock);
    ck_work *was = q->ready;
    q->ready = work;
    pthread_mutex_unlock(&q->lock);
    return was;
}

int32_t ck_has_offer(ck_queue *q) {
    pthread_mutex_lock(&q->lock);
    int32_t has = q->ready != NULL;
    pthread_mutex_unlock(&q->lock);
    return has;
}

int64_t ck_nanoseconds(const ck_work *work) { return __atomic_load_n(&work->nanoseconds, __ATOMIC_ACQUIRE); }
#else
typedef int none; /* a file of C has to declare something */
#endif
